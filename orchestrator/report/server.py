"""A list of a storage's experiments and their reports over HTTP: read-only, for this machine unless told otherwise."""

from __future__ import annotations

import html
import mimetypes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

from orchestrator.store.storage import Storage, StorageError
from trainers.errors import InputError

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tandem</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
li {{ margin: 0 0 1rem; }} p {{ margin: 0; }}
</style></head><body><main><h1>Experiments</h1><ul>{items}</ul></main></body></html>"""
_ITEM = '<li><a href="{link}">{name}</a><p>{conclusion}</p></li>'


def listen(storage: Storage, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is ready to serve.

    Args:
        storage: with a directory for each experiment.
        host: address to listen on.
        port: 0 for a free one.

    Raises:
        InputError: the port is taken or not allowed, or the storage is that of a single experiment.
    """
    if storage.read("experiment.json") is not None:
        raise InputError(f"{storage.url} is one experiment; give the directory above, which may hold several")

    class Handler(_Handler):
        experiments = storage

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InputError(
            f"port {port} of {host} cannot be used: {error.strerror}; choose another with --port"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    experiments: Storage

    def do_GET(self) -> None:
        try:
            self._serve()
        except StorageError as error:
            self._respond(503, "text/plain; charset=utf-8", f"{error}\n".encode())

    def _serve(self) -> None:
        path = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if not path:
            self._respond(200, "text/html; charset=utf-8", _listing(self.experiments).encode())
        elif len(path) < 3 or path[1] != "report" or any(part in ("..", ".") or "/" in part for part in path):
            self._respond(404, "text/plain; charset=utf-8", b"there is no such page\n")
        else:
            content = self.experiments.read("/".join(path))
            kind = mimetypes.guess_type(path[-1])[0] or "application/octet-stream"
            if content is None:
                self._respond(404, "text/plain; charset=utf-8", b"there is no such page\n")
            else:
                self._respond(200, kind, content)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def _respond(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)


def _listing(storage: Storage) -> str:
    items = []
    for name in storage.names():
        results = storage.read_json(f"{name}/report/results.json")
        if results is not None:
            link = f"/{quote(name)}/report/report.html"
            conclusion = html.escape(str(results.get("conclusion", "")))
            items.append(_ITEM.format(link=link, name=html.escape(name), conclusion=conclusion))
    return _PAGE.format(items="".join(items) or "<li>There are none here yet.</li>")

"""A list of a storage's experiments and their reports over HTTP: read-only, and by default for this machine alone."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import mimetypes
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import jinja2

from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage, StorageError
from trainers.errors import InputError

_SCRIPT = """
const items = [...document.querySelectorAll('li')];
document.querySelector('input').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const item of items) {
    const text = item.textContent.toLowerCase();
    item.hidden = !words.every(word => text.includes(word));
  }
});
"""
_INDEX = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tandem</title><style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
ul { list-style: none; padding: 0; } li { margin: 0 0 1rem; } p { margin: 0; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: 0.3rem; }
</style></head><body><main><h1>Experiments</h1>
{%- if experiments %}
<label>Search names, dates and verdicts<input type="search"></label>
<ul>{% for each in experiments %}
<li><a href="/{{ each.name | urlencode }}/report/report.html">{{ each.name }}</a> <time>{{ each.date }}</time>
<p>{{ each.verdict }}</p></li>{% endfor %}</ul>
<script>{{ script | safe }}</script>
{%- else %}
<p>There are none here yet.</p>
{%- endif %}
</main></body></html>""")

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_INDEX_POLICY = f"{_NOTHING}; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'"
_REPORT_POLICY = (
    f"{_NOTHING}; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "sandbox allow-scripts allow-downloads"
)
"""In a sandbox a page has an origin of its own: its scripts cannot read the index or another report."""


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
        names = frozenset({"localhost", host.lower(), socket.gethostname().lower()})

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise InputError(
            f"port {port} of {host} cannot be used: {error.strerror}; choose another with --port"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    experiments: Storage
    names: frozenset[str]
    """Host names that this server is known by, in lower case."""

    def do_GET(self) -> None:
        try:
            self._serve()
        except StorageError as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    do_HEAD = do_GET

    def _serve(self) -> None:
        if not self._is_addressed():
            self._refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the request names another host; use an IP address, localhost, this machine's name or that of --host",
            )
            return
        match [unquote(part) for part in urlsplit(self.path).path.split("/") if part]:
            case []:
                self._respond("text/html; charset=utf-8", _index(self.experiments), _INDEX_POLICY)
            case [name] | [name, "report"] if self._is_file([name, "report", "report.html"]):
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", f"/{quote(name, safe='')}/report/report.html")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case [_, "report", _, *_] as path if self._is_file(path):
                kind = mimetypes.guess_type(path[-1])[0] or "application/octet-stream"
                self._respond(kind, self.experiments.read("/".join(path)) or b"", _REPORT_POLICY)
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _is_addressed(self) -> bool:
        """Whether the request names this server. A page of another site can only reach it by a name of that site."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def _is_file(self, path: list[str]) -> bool:
        """Whether a path below the storage is a file, and not one outside that a link points to."""
        if any(part in {"..", "."} or "/" in part or "\0" in part for part in path):
            return False
        if self.experiments.is_local:
            root = Path(self.experiments.url).resolve()
            if not root.joinpath(*path).resolve().is_relative_to(root):
                return False
        return self.experiments.is_file("/".join(path))

    def log_message(self, *_: object) -> None:
        """Print nothing for each request."""

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._respond("text/plain; charset=utf-8", f"{sentence}\n".encode(), _NOTHING, status=status)

    def _respond(self, kind: str, content: bytes, policy: str, *, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _index(storage: Storage) -> bytes:
    """The experiments that have a report, the latest first."""
    experiments: list[tuple[float, dict[str, str]]] = []
    for name in storage.names():
        results = storage.read_json(f"{name}/report/results.json")
        if results is None:
            continue
        started = max(
            (session["started_at"] for session in ExperimentRecords(storage.at(name)).sessions()), default=0.0
        )
        date = datetime.datetime.fromtimestamp(started, datetime.UTC)
        shown = {
            "name": name,
            "date": f"{date:%Y-%m-%d %H:%M} UTC" if started else "",
            "verdict": str(results.get("conclusion", "")),
        }
        experiments.append((started, shown))
    experiments.sort(key=lambda each: each[0], reverse=True)
    return _INDEX.render(experiments=[shown for _, shown in experiments], script=_SCRIPT).encode()

"""A strict API server for tests, which the official client and kubectl talk to over real HTTPS.

It serves what tandem uses as Kubernetes does: resource versions and uids, the bodies of 400, 401, 403, 404, 409 and
422, the schemas of KubeRay's CRDs with strict field validation, pruning and defaulting, status as a subresource, label
and field selectors, lists in pages, watches with bookmarks and expiry, owner references, finalizers, RBAC, access
reviews, tokens of service accounts, dry runs, the proxy to services. The transcripts of a real cluster hold it to that.

Not modelled: field ownership (server-side apply merges), strategic merge of lists, most schemas of Kubernetes' own
kinds, CEL rules, admission but for quotas on the number of objects, continue tokens of a fixed snapshot, aggregated
APIs, OpenAPI.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
import yaml

from tests.cluster.kube import schemas
from tests.cluster.kube.store import Change, Key, Manifest, Store, now

ADMIN = "kubernetes-admin"
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go",
    "compiler": "gc",
    "platform": "linux/amd64",
}
_LONGEST_NAME, _LONGEST_LABEL = 253, 63
_LABEL_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY = "[-._a-zA-Z0-9]+"
_FIELDS = {
    "configmaps": {"apiVersion", "kind", "metadata", "data", "binaryData", "immutable"},
    "secrets": {"apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"},
}
"""Of the kinds without a schema here whose unknown fields are refused."""
_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


class Kind:
    """A kind that the server serves."""

    def __init__(self, api: str, kind: str, plural: str, *, namespaced: bool = True) -> None:
        self.api, self.kind, self.plural, self.namespaced = api, kind, plural, namespaced
        self.group = api.rpartition("/")[0]
        self.resource = f"{plural}.{self.group}" if self.group else plural
        self.schema: schemas.Schema | None = None


def _built_in() -> list[Kind]:
    core = {
        "ConfigMap": "configmaps", "Event": "events", "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods", "ResourceQuota": "resourcequotas", "Secret": "secrets", "Service": "services",
        "ServiceAccount": "serviceaccounts", "LimitRange": "limitranges",
    }  # fmt: skip
    kinds = [Kind("v1", kind, plural) for kind, plural in core.items()]
    kinds += [
        Kind("v1", "Namespace", "namespaces", namespaced=False),
        Kind("v1", "Node", "nodes", namespaced=False),
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    kinds += [
        Kind(rbac, "Role", "roles"),
        Kind(rbac, "RoleBinding", "rolebindings"),
        Kind(rbac, "ClusterRole", "clusterroles", namespaced=False),
        Kind(rbac, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
        Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        Kind("apps/v1", "Deployment", "deployments"),
        Kind("batch/v1", "Job", "jobs"),
    ]
    return kinds


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(
        self, code: int, reason: str, message: str, details: Manifest | None = None, *, keeps: bool = False
    ) -> None:
        """An answer; `keeps` says whether details are shown that are empty."""
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            **({"details": details} if details or keeps else {}),
            "code": code,
        }


class ApiServer:
    """The server and its memory; `faults` may be consulted before each request."""

    def __init__(self, crds: Path | None) -> None:
        """Serve on a free port of this machine.

        Args:
            crds: directory of KubeRay's CustomResourceDefinitions; None for a cluster without KubeRay.
        """
        self.store = Store()
        self.kinds = _built_in()
        for file in sorted(crds.glob("*.yaml")) if crds else []:
            self._define(schemas.crd(file))
        self.proxies: dict[tuple[str, str], str] = {}
        """Base URL of the service of a namespace and name."""
        self.fault: Callable[[str, str], tuple[int, dict[str, str]] | None] = lambda method, path: None
        """Given method and path, a status and headers to answer instead."""
        self.requests: list[tuple[str, str]] = []
        self.verbs: set[tuple[str, str, str]] = set()
        """User, verb and resource of every request that was allowed."""
        self.pod_logs: dict[tuple[str, str, str], str] = {}
        """The log of a container, by namespace, pod and name."""
        self.tokens = {secrets.token_urlsafe(24): ADMIN}
        self.store.put(("namespaces", "", "default"), _namespace("default"))
        authority = trustme.CA()
        self._authority = authority.cert_pem.bytes()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        api = self

        class Handler(_Handler):
            server_of = api

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.socket = self._context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]
        self._stopped = threading.Event()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be gone: nothing listens, and open watches end."""
        assert self._server is not None
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        with self.store.lock:
            self.store.lock.notify_all()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def kubeconfig(self, *, token: str | None = None, namespace: str = "default") -> str:
        """A kubeconfig for the administrator, or for a token."""
        admin = next(token for token, user in self.tokens.items() if user == ADMIN)
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": base64.b64encode(self._authority).decode(),
        }
        return str(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "me", "user": {"token": token or admin}}],
                    "contexts": [
                        {"name": "test", "context": {"cluster": "test", "user": "me", "namespace": namespace}}
                    ],
                    "current-context": "test",
                }
            )
        )

    def _define(self, definition: Manifest) -> None:
        names, group = definition["spec"]["names"], definition["spec"]["group"]
        kind = Kind(f"{group}/v1", names["kind"], names["plural"])
        kind.schema = schemas.version_of(definition, "v1")["schema"]["openAPIV3Schema"]
        self.kinds.append(kind)

    def allowed(self, user: str, verb: str, kind_group: str, resource: str, namespace: str) -> bool:
        """What RBAC says."""
        if user == ADMIN:
            return True
        bindings = [
            (binding, "clusterroles")
            for binding in self.store.list("clusterrolebindings.rbac.authorization.k8s.io", None)
        ]
        if namespace:
            bindings += [
                (binding, "roles")
                for binding in self.store.list("rolebindings.rbac.authorization.k8s.io", namespace)
            ]
        for binding, _ in bindings:
            if not any(_names(subject, user) for subject in binding.get("subjects", [])):
                continue
            role = binding["roleRef"]
            plural = "roles" if role["kind"] == "Role" else "clusterroles"
            key = (
                f"{plural}.rbac.authorization.k8s.io",
                namespace if plural == "roles" else "",
                role["name"],
            )
            for rule in (self.store.get(key) or {}).get("rules", []):
                if (
                    {verb, "*"} & set(rule.get("verbs", []))
                    and {kind_group, "*"} & set(rule.get("apiGroups", []))
                    and {resource, "*"} & set(rule.get("resources", []))
                ):
                    return True
        return False


class _Handler(BaseHTTPRequestHandler):
    server_of: ApiServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._content = self.rfile.read(length)
        parts = urlsplit(self.path)
        self._path, self._query = (
            parts.path,
            {name: values[0] for name, values in parse_qs(parts.query).items()},
        )
        self.server_of.requests.append((method, self._path))
        try:
            if (fault := self.server_of.fault(method, self._path)) is not None:
                code, headers = fault
                raise _Faulty(code, headers)
            self._user = self._authenticate()
            self._route(method)
        except _Faulty as faulty:
            refused = Refused(
                faulty.code, "TooManyRequests" if faulty.code == 429 else "InternalError", "try later"
            )
            self._answer(faulty.code, refused.body, faulty.headers)
        except Refused as refused:
            self._answer(refused.code, refused.body)
        except PageNotFound:
            self._raw(404, b"404 page not found\n", "text/plain; charset=utf-8")
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def _authenticate(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._path == "/version" and not token:
            return "system:anonymous"
        user = self.server_of.tokens.get(token)
        if user is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return user

    def _route(self, method: str) -> None:
        path = self._path.rstrip("/")
        if path == "/version":
            self._answer(200, _VERSION)
        elif method == "GET" and (discovered := self._discovery(path)) is not None:
            self._answer(200, discovered)
        elif path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" and method == "POST":
            self._review()
        elif match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/services/([^/]+)/proxy(/.*)?", path):
            self._proxy(*match.groups())
        elif match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/log", path):
            self._pod_log(*match.groups())
        elif match := re.fullmatch(r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token", path):
            self._token(*match.groups())
        else:
            self._resource(method, path)

    def _discovery(self, path: str) -> Manifest | None:
        kinds = self.server_of.kinds
        groups = sorted({kind.api for kind in kinds if kind.group})
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            listed = [
                {
                    "name": api.partition("/")[0],
                    "versions": [{"groupVersion": api, "version": "v1"}],
                    "preferredVersion": {"groupVersion": api, "version": "v1"},
                }
                for api in groups
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        api = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
        served = [kind for kind in kinds if kind.api == api]
        if not served:
            return None
        resources = []
        for kind in served:
            one = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
            resources.append({"name": kind.plural, **one, "verbs": _VERBS})
            if kind.schema:
                resources.append(
                    {
                        "name": f"{kind.plural}/status",
                        **one,
                        "singularName": "",
                        "verbs": ["get", "patch", "update"],
                    }
                )
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources}

    def _review(self) -> None:
        review = json.loads(self._content)
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [asked.get("resource", ""), asked.get("subresource", "")]))
        allowed = self.server_of.allowed(
            self._user, asked["verb"], asked.get("group", ""), resource, asked.get("namespace", "")
        )
        self._answer(201, review | {"metadata": {}, "status": {"allowed": allowed}})

    def _token(self, namespace: str, account: str) -> None:
        self._permit("create", "", "serviceaccounts/token", namespace)
        token = secrets.token_urlsafe(24)
        self.server_of.tokens[token] = f"system:serviceaccount:{namespace}:{account}"
        self._answer(
            201,
            {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": {"token": token}},
        )

    def _pod_log(self, namespace: str, pod: str) -> None:
        self._permit("get", "", "pods/log", namespace, name=pod)
        log = self.server_of.pod_logs.get((namespace, pod, self._query.get("container", "")))
        if log is None:
            message = f'pods "{pod}" not found'
            raise Refused(404, "NotFound", message, {"name": pod, "kind": "pods"})
        lines = log.splitlines(keepends=True)[-int(self._query.get("tailLines") or 0) :]
        self._raw(200, "".join(lines).encode(), "text/plain")

    def _proxy(self, namespace: str, service: str, below: str | None) -> None:
        self._permit("get", "", "services/proxy", namespace)
        name = service.partition(":")[0]
        base = self.server_of.proxies.get((namespace, name))
        if base is None and self.server_of.store.get(("services", namespace, name)) is None:
            details = {"name": name, "kind": "services"}
            raise Refused(404, "NotFound", f'services "{name}" not found', details)
        if base is None:
            raise Refused(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
        query = f"?{urlsplit(self.path).query}" if urlsplit(self.path).query else ""
        headers = {
            key: value
            for key, value in self.headers.items()
            if key.lower() in ("x-ray-authorization", "accept")
        }
        try:
            request = urllib.request.Request(f"{base}{below or '/'}{query}", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                self._raw(
                    answer.status, answer.read(), answer.headers.get("Content-Type", "application/json")
                )
        except urllib.error.HTTPError as error:
            self._raw(error.code, error.read(), "text/plain")
        except OSError as error:
            raise Refused(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error

    def _resource(self, method: str, path: str) -> None:
        kind, namespace, name, subresource = self._parse(path)
        if namespace and not kind.namespaced:
            raise Refused(404, "NotFound", "the server could not find the requested resource", {}, keeps=True)
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method) or (
            "watch" if self._query.get("watch") in ("1", "true") else "get" if name else "list"
        )
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        self._permit(verb, kind.group, resource, namespace, kind=kind, name=name)
        if verb == "watch":
            self._watch(kind, namespace)
        elif verb == "list":
            self._list(kind, namespace)
        elif verb == "create":
            self._create(kind, namespace)
        else:
            self._one(verb, kind, (kind.resource, namespace, name), subresource)

    def _parse(self, path: str) -> tuple[Kind, str, str, str]:
        match = re.fullmatch(
            r"/(?:api/(?P<core>v1)|apis/(?P<api>[^/]+/[^/]+))"
            r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?",
            path,
        )
        api = match and (match["core"] or match["api"])
        for kind in self.server_of.kinds:
            if match and kind.api == api and kind.plural == match["plural"]:
                return kind, match["namespace"] or "", match["name"] or "", match["sub"] or ""
        raise PageNotFound

    def _permit(
        self,
        verb: str,
        group: str,
        resource: str,
        namespace: str,
        *,
        kind: Kind | None = None,
        name: str = "",
    ) -> None:
        if self.server_of.allowed(self._user, verb, group, resource, namespace):
            self.server_of.verbs.add((self._user, verb, f"{resource}.{group}" if group else resource))
            return
        plural = resource.partition("/")[0]
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        qualified = f"{plural}.{group}" if group else plural
        named = f' "{name}"' if name else ""
        message = (
            f'{qualified}{named} is forbidden: User "{self._user}" cannot {verb} resource "{resource}" '
            f'in API group "{group}"{where}'
        )
        details = {"group": group, "kind": plural} | ({"name": name} if name else {})
        raise Refused(403, "Forbidden", message, details)

    def _list(self, kind: Kind, namespace: str) -> None:
        matches = self._selected()
        items = [
            item for item in self.server_of.store.list(kind.resource, namespace or None) if matches(item)
        ]
        start = _continued(self._query["continue"]) if self._query.get("continue") else ("", "")
        items = [item for item in items if _place(item) > start]
        limit = int(self._query.get("limit") or 0) or len(items)
        page, left = items[:limit], len(items) - limit
        metadata: Manifest = {"resourceVersion": str(self.server_of.store.version)}
        if kind.schema is not None:
            metadata["continue"] = ""
        if left > 0:
            metadata["continue"] = base64.b64encode(json.dumps(_place(page[-1])).encode()).decode()
            metadata["remainingItemCount"] = left
        self._answer(
            200, {"apiVersion": kind.api, "kind": f"{kind.kind}List", "metadata": metadata, "items": page}
        )

    def _watch(self, kind: Kind, namespace: str) -> None:
        store = self.server_of.store
        matches = self._selected()
        version = int(self._query.get("resourceVersion") or store.version)
        limit = time.monotonic() + float(self._query.get("timeoutSeconds") or 300)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        bookmarked = time.monotonic()
        while time.monotonic() < limit and not self.server_of.is_stopped:
            if version < store.oldest:
                message = f"too old resource version: {version} ({store.oldest})"
                expired = Refused(410, "Expired", message).body
                self._chunk({"type": "ERROR", "object": expired})
                break
            for change in store.changes_after(version, kind.resource, namespace or None):
                version = max(version, change.version)
                if matches(change.object):
                    self._chunk({"type": change.type, "object": _with_kind(change, kind)})
            if time.monotonic() - bookmarked > 1 and self._query.get("allowWatchBookmarks") in ("1", "true"):
                version, bookmarked = max(version, store.version), time.monotonic()
                metadata = {"resourceVersion": str(version)}
                bookmark = {"kind": kind.kind, "apiVersion": kind.api, "metadata": metadata}
                self._chunk({"type": "BOOKMARK", "object": bookmark})
            with store.lock:
                if not any(True for _ in store.changes_after(version, kind.resource, namespace or None)):
                    store.lock.wait(timeout=min(0.5, max(0.01, limit - time.monotonic())))
        if self.server_of.is_stopped:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def _create(self, kind: Kind, namespace: str) -> None:
        manifest = self._manifest()
        if kind.schema is None:
            manifest = {"apiVersion": kind.api, "kind": kind.kind} | manifest
        metadata = manifest.setdefault("metadata", {})
        if kind.namespaced and metadata.get("namespace", namespace) != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise Refused(400, "BadRequest", message)
        if "generateName" in metadata and "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)[:5]}"
        name = metadata.get("name", "")
        if kind.namespaced:
            if self.server_of.store.get(("namespaces", "", namespace)) is None:
                details = {"name": namespace, "kind": "namespaces"}
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found', details)
            metadata["namespace"] = namespace
        warnings = self._check(kind, manifest, name)
        key = (kind.resource, namespace if kind.namespaced else "", name)
        if self.server_of.store.get(key) is not None:
            message = f'{kind.resource} "{name}" already exists'
            raise Refused(409, "AlreadyExists", message, _details(kind, name))
        if kind.schema is not None:
            manifest = self._settled(kind, manifest)
            manifest.pop("status", None)
        if kind.plural == "namespaces":
            metadata["labels"] = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": name}
            manifest |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        self._admit(kind, manifest, namespace)
        headers = {"Warning": "; ".join(f'299 - "{w}"' for w in warnings)} if warnings else {}
        if self._query.get("dryRun") == "All":
            metadata = manifest["metadata"]
            metadata |= {"uid": "dry-run", "creationTimestamp": now(), "generation": 1}
            self._answer(201, manifest, headers)
            return
        metadata.pop("uid", None)
        metadata.pop("resourceVersion", None)
        created = self.server_of.store.put(key, manifest)
        self._answer(201, created, headers)

    def _admit(self, kind: Kind, manifest: Manifest, namespace: str) -> None:
        """Refuse what a quota on the number of objects of the kind does not allow."""
        limit = f"count/{kind.resource}"
        store = self.server_of.store
        for quota in store.list("resourcequotas", namespace) if kind.namespaced else []:
            hard = quota["spec"].get("hard", {}).get(limit)
            used = len(store.list(kind.resource, namespace))
            if hard is not None and used >= int(hard):
                name = manifest["metadata"]["name"]
                message = (
                    f'{kind.resource} "{name}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, '
                    f"requested: {limit}=1, used: {limit}={used}, limited: {limit}={hard}"
                )
                raise Refused(403, "Forbidden", message, _details(kind, name))

    def _one(self, verb: str, kind: Kind, key: Key, subresource: str) -> None:
        store, name = self.server_of.store, key[2]
        if verb == "delete":
            _check_policy(self._query.get("propagationPolicy", "Background"))
        if not kind.namespaced:
            key = (kind.resource, "", name)
        found = store.get(key)
        if found is None and verb == "patch" and "apply-patch" in (self.headers.get("Content-Type") or ""):
            self._create(kind, key[1])
            return
        if found is None:
            raise Refused(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))
        if verb == "get":
            self._answer(200, found)
            return
        if verb == "delete":
            last = store.delete(key)
            if kind.plural == "namespaces":
                self._empty(name)
            if kind.plural in ("pods", "namespaces") or store.get(key) is not None:
                self._answer(200, last or found)
                return
            details = _details(kind, name) | {"uid": found["metadata"]["uid"]}
            done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            self._answer(200, done | {"details": details})
            return
        sent = self._manifest()
        if verb == "update":
            wanted = sent["metadata"].get("resourceVersion")
            if wanted and wanted != found["metadata"]["resourceVersion"]:
                message = (
                    f'Operation cannot be fulfilled on {kind.resource} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again"
                )
                raise Refused(409, "Conflict", message, _details(kind, name))
            changed = sent
        else:
            changed = _merged(found, sent)
        if kind.schema is not None:
            own = "status" if subresource == "status" else "spec"
            merged = dict(found)
            if own in changed:
                merged[own] = changed[own]
            if own == "spec":
                merged["metadata"] = _with_system_fields(changed["metadata"], found["metadata"])
            self._check(kind, merged, name)
            changed = self._settled(kind, merged)
        else:
            changed["metadata"] = _with_system_fields(changed["metadata"], found["metadata"])
        self._answer(200, store.put(key, changed))

    def _empty(self, namespace: str) -> None:
        """Delete all that a namespace holds."""
        for kind in self.server_of.kinds:
            for item in self.server_of.store.list(kind.resource, namespace):
                if kind.namespaced:
                    self.server_of.store.delete((kind.resource, namespace, item["metadata"]["name"]))

    def _check(self, kind: Kind, manifest: Manifest, name: str) -> list[str]:
        """Refuse what the server would; gives its warnings."""
        details = {"name": name, "group": kind.group, "kind": kind.kind}
        details = {field: value for field, value in details.items() if value}
        qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
        if manifest.get("kind", kind.kind) != kind.kind:
            sent = manifest["kind"]
            problem = f'Invalid value: "{sent}": must be {kind.kind}', "kind"
            _refuse([problem], f"{sent}.{kind.group}", name, details | {"kind": sent})
        if problems := _problems(kind, manifest, name):
            _refuse(problems, qualified, name, details)
        unknown = [
            f'unknown field "{field}"' for field in manifest if field not in _FIELDS.get(kind.plural, {field})
        ]
        if unknown and self._query.get("fieldValidation") == "Strict":
            raise Refused(400, "BadRequest", _strict(kind, unknown))
        if kind.schema is None:
            return []
        unknown = [f'unknown field "{path}"' for path in schemas.unknown_fields(manifest, kind.schema)]
        if unknown and self._query.get("fieldValidation") == "Strict":
            raise Refused(400, "BadRequest", _strict(kind, unknown))
        found = list(schemas.problems({k: v for k, v in manifest.items() if k != "metadata"}, kind.schema))
        if found:
            if schemas.has_rules(kind.schema):
                found.append(("FieldValueInvalid", _RULES_SKIPPED, "<nil>"))
            causes = [{"reason": reason, "message": words, "field": field} for reason, words, field in found]
            listed = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
            if len(causes) > 1:
                listed = f"[{listed}]"
            message = f'{qualified} "{name}" is invalid: {listed}'
            raise Refused(422, "Invalid", message, details | {"causes": causes})
        return [word.replace('"', '\\"') for word in unknown]

    def _settled(self, kind: Kind, manifest: Manifest) -> Manifest:
        assert kind.schema is not None
        metadata = manifest["metadata"]
        below = {name: value for name, value in manifest.items() if name != "metadata"}
        return schemas.defaulted(schemas.pruned(below, kind.schema), kind.schema) | {"metadata": metadata}

    def _manifest(self) -> Manifest:
        try:
            return dict(
                yaml.safe_load(self._content) if self._content[:1] != b"{" else json.loads(self._content)
            )
        except ValueError as error:
            raise Refused(400, "BadRequest", f"the body is no object: {error}") from error

    def _selected(self) -> Callable[[Manifest], bool]:
        labels = _selector(self._query.get("labelSelector", ""))
        fields = dict(part.split("=", 1) for part in self._query.get("fieldSelector", "").split(",") if part)
        for field in fields:
            if not field.startswith(("metadata.name", "metadata.namespace", "involvedObject.")):
                raise Refused(400, "BadRequest", f"field label not supported: {field}")

        def matches(item: Manifest) -> bool:
            has = {
                "metadata.name": item["metadata"]["name"],
                "metadata.namespace": item["metadata"].get("namespace"),
            }
            about = item.get("involvedObject", {})
            has |= {f"involvedObject.{name}": value for name, value in about.items()}
            own = item["metadata"].get("labels") or {}
            return all(has.get(name) == value for name, value in fields.items()) and all(
                rule(own) for rule in labels
            )

        return matches

    def _chunk(self, document: Manifest) -> None:
        line = json.dumps(document).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def _answer(self, code: int, document: Manifest, headers: dict[str, str] | None = None) -> None:
        self._raw(code, json.dumps(document).encode(), "application/json", headers)

    def _raw(self, code: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class _Faulty(Exception):
    def __init__(self, code: int, headers: dict[str, str]) -> None:
        self.code, self.headers = code, headers


class PageNotFound(Exception):
    """No such API."""


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _details(kind: Kind, name: str) -> Manifest:
    return {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural}


def _names(subject: Manifest, user: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace')}:{subject['name']}"
    return subject["kind"] == "User" and subject["name"] == user


def _place(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _continued(token: str) -> tuple[str, str]:
    try:
        namespace, name = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        message = (
            "invalid continue token: continue key is not valid: "
            f"invalid character '{_first_character(token)}' looking for beginning of value"
        )
        raise Refused(400, "BadRequest", message) from None
    return namespace, name


def _first_character(token: str) -> str:
    """The first character of a token's content, as Go writes it."""
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return chr(content[0]) if content[0] < 128 else f"\\x{content[0]:02x}"


def _check_policy(policy: str) -> None:
    if policy in ("Foreground", "Background", "Orphan"):
        return
    words = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
    cause = {"reason": "FieldValueNotSupported", "message": words, "field": "propagationPolicy"}
    details = {"group": "meta.k8s.io", "kind": "DeleteOptions", "causes": [cause]}
    message = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {words}'
    raise Refused(422, "Invalid", message, details)


def _problems(kind: Kind, manifest: Manifest, name: str) -> list[tuple[str, str]]:
    """What is wrong with an object's metadata and keys: a message and a field each."""
    found = []
    if not name:
        found.append(("Required value: name or generateName is required", "metadata.name"))
        if kind.schema is not None and schemas.has_rules(kind.schema):
            found.append((_RULES_SKIPPED, "<nil>"))
    elif len(name) > _LONGEST_NAME:
        words = f'Invalid value: "{name}": must be no more than {_LONGEST_NAME} characters'
        found.append((words, "metadata.name"))
    elif not re.fullmatch(_NAME, name):
        words = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', "
            f"regex used for validation is '{_NAME}')"
        )
        found.append((words, "metadata.name"))
    for value in (manifest["metadata"].get("labels") or {}).values():
        if len(value) > _LONGEST_LABEL:
            words = f'Invalid value: "{value}": must be no more than {_LONGEST_LABEL} bytes'
            found.append((words, "metadata.labels"))
        elif not re.fullmatch(_LABEL_VALUE, value):
            words = (
                f'Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  "
                f"or 'my_value',  or '12345', regex used for validation is '{_LABEL_VALUE}')"
            )
            found.append((words, "metadata.labels"))
    if any(not owner.get("uid") for owner in manifest["metadata"].get("ownerReferences") or []):
        found.append(('Invalid value: "": must not be empty', "metadata.ownerReferences.uid"))
    for key in manifest.get("data") or {} if kind.plural in ("configmaps", "secrets") else {}:
        if not re.fullmatch(_KEY, key):
            words = (
                f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or "
                f"'.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_KEY}')"
            )
            found.append((words, f"data[{key}]"))
    return found


_RULES_SKIPPED = (
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


def _refuse(problems: list[tuple[str, str]], qualified: str, name: str, details: Manifest) -> None:
    causes = [
        {
            "reason": "FieldValueRequired" if words.startswith("Required") else "FieldValueInvalid",
            "message": words,
            "field": field,
        }
        for words, field in problems
    ]
    listed = ", ".join(f"{field}: {words}" for words, field in problems)
    if len(problems) > 1:
        listed = f"[{listed}]"
    raise Refused(422, "Invalid", f'{qualified} "{name}" is invalid: {listed}', details | {"causes": causes})


def _strict(kind: Kind, unknown: list[str]) -> str:
    return (
        f'{kind.kind} in version "v1" cannot be handled as a {kind.kind}: strict decoding error: '
        f"{', '.join(unknown)}"
    )


def _selector(text: str) -> list[Callable[[dict[str, str]], bool]]:
    """The requirements of a label selector."""
    rules: list[Callable[[dict[str, str]], bool]] = []
    for part in re.findall(r"[^,(]+(?:\([^)]*\)?)?", text):
        part = part.strip()
        if within := re.fullmatch(r"(\S+) (in|notin) \((.*)", part):
            if not within[3].endswith(")"):
                message = "unable to parse requirement: found '', expected: ',' or ')'"
                raise Refused(400, "BadRequest", message)
            chosen = {value.strip() for value in within[3][:-1].split(",")}
            wanted = within[2] == "in"
            rules.append(lambda own, k=within[1], c=chosen, w=wanted: (own.get(k) in c) == w)
        elif "!=" in part:
            name, value = part.split("!=")
            rules.append(lambda own, k=name, v=value: own.get(k) != v)
        elif "=" in part:
            name, *values = part.replace("==", "=").split("=")
            if len(values) != 1:
                raise Refused(400, "BadRequest", "found '==', expected: ',' or 'end of string'")
            value = values[0]
            rules.append(lambda own, k=name, v=value: own.get(k) == v)
        elif part.startswith("!"):
            rules.append(lambda own, k=part[1:]: k not in own)
        elif part:
            rules.append(lambda own, k=part: k in own)
    return rules


def _merged(found: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _with_system_fields(metadata: Manifest, found: Manifest) -> Manifest:
    kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "name", "namespace")
    return metadata | {name: found[name] for name in kept if name in found}


def _with_kind(change: Change, kind: Kind) -> Manifest:
    return {"apiVersion": kind.api, "kind": kind.kind} | change.object


@contextlib.contextmanager
def serving(crds: Path | None) -> Iterator[ApiServer]:
    """A server for as long as the block lasts."""
    server = ApiServer(crds)
    try:
        yield server
    finally:
        server.stop()

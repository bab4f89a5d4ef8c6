"""Kubernetes' API through the official client, in plain dictionaries: patient, and in plain words.

What may pass by itself (no answer, throttling, an error of the server's own) is tried again for two minutes once
the server has answered at all. What will not pass is a `Refusal` with the API's own reason in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.clusters.kubernetes_objects import Manifest
from trainers.errors import ClusterError

_PATIENCE_SECONDS = 120.0
_FIRST_PATIENCE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 10.0
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 60
_PAGE = 500
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of object and where the API has it."""

    name: str
    plural: str
    api: str = "v1"
    """Group and version."""

    @property
    def resource(self) -> str:
        """As roles name it."""
        group = self.api.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str | None, name: str = "") -> str:
        """Where the API has the objects of a namespace (None: of all, or of a kind that has none)."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")


RAY_JOB = Kind("RayJob", "rayjobs", "ray.io/v1")
RAY_CLUSTER = Kind("RayCluster", "rayclusters", "ray.io/v1")
CONFIG_MAP = Kind("ConfigMap", "configmaps")
EVENT = Kind("Event", "events")
NODE = Kind("Node", "nodes")
POD = Kind("Pod", "pods")
QUOTA = Kind("ResourceQuota", "resourcequotas")
SECRET = Kind("Secret", "secrets")
LOCAL_QUEUE = Kind("LocalQueue", "localqueues", "kueue.x-k8s.io/v1beta1")
WORKLOAD = Kind("Workload", "workloads", "kueue.x-k8s.io/v1beta1")
ACCESS_REVIEW = Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", "authorization.k8s.io/v1")


class Refusal(ClusterError):
    """The API said no; `status` is HTTP's."""

    def __init__(self, sentence: str, *, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class NotThere(Refusal):
    """There is no such object, kind or namespace."""


class AlreadyThere(Refusal):
    """There is an object of this name."""


class KubernetesApi:
    """The control plane of one context of the kubeconfig, or of the cluster that this runs in."""

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Read the configuration and greet the server.

        Args:
            context: of the kubeconfig; its current one when left out.
            namespace: the context's own when left out.

        Raises:
            ClusterError: there is no usable configuration, or nothing answers.
        """
        self._client, self.context, own = _configured(context)
        self.namespace = namespace or own
        self._patience = _FIRST_PATIENCE_SECONDS
        self.version = str(self.request("GET", "/version")["gitVersion"])
        self._patience = _PATIENCE_SECONDS

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """An object, or None where there is none."""
        try:
            return self.request("GET", kind.path(self._within(kind), name))
        except NotThere:
            return None

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """All objects that selectors name, read page by page."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        query = {name: value for name, value in query.items() if value}
        found: list[Manifest] = []
        while True:
            try:
                page = self.request("GET", kind.path(self._within(kind)), query)
            except Refusal as refusal:
                if refusal.status != 410 or "continue" not in query:
                    raise
                del query["continue"]  # the list changed too much while it was read: from its beginning
                found = []
                continue
            found += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found
            query["continue"] = token

    def create(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object, unknown fields refused.

        Raises:
            AlreadyThere: there is an object of this name.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("POST", kind.path(self._within(kind)), query, manifest)

    def delete(self, kind: Kind, name: str) -> None:
        """Ask for an object's end; one that is gone already is fine."""
        with contextlib.suppress(NotThere):
            self.request("DELETE", kind.path(self._within(kind), name), {"propagationPolicy": "Background"})

    def may(self, verb: str, kind: Kind) -> bool:
        """Whether these credentials may do something in the namespace."""
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": kind.api.rpartition("/")[0],
            "resource": kind.plural,
        }
        review = {
            "apiVersion": ACCESS_REVIEW.api,
            "kind": ACCESS_REVIEW.name,
            "spec": {"resourceAttributes": attributes},
        }
        return bool(self.request("POST", ACCESS_REVIEW.path(None), {}, review)["status"]["allowed"])

    def watch(self, kind: Kind, name: str, *, every: float) -> Iterator[Manifest | None]:
        """An object now, after each change, and at least so often (seconds); None once it is gone."""
        changes: queue.SimpleQueue[Manifest | ClusterError | None] = queue.SimpleQueue()
        over = threading.Event()

        def look() -> None:
            try:
                for change in self._changes(kind, name):
                    changes.put(change)
                    if over.is_set():
                        return
            except ClusterError as error:
                changes.put(error)
            except Exception as error:  # or whoever waits for changes would wait for ever
                changes.put(ClusterError(f"watching {kind.resource} {name} failed: {error!r}"))

        threading.Thread(target=look, daemon=True, name="tandem-watch").start()
        try:
            latest = changes.get()
            while True:
                if isinstance(latest, ClusterError):
                    raise latest
                yield latest
                if latest is None:
                    return
                with contextlib.suppress(queue.Empty):
                    latest = changes.get(timeout=every)
        finally:
            over.set()

    def _changes(self, kind: Kind, name: str) -> Iterator[Manifest | None]:
        """The same from one watch after another: each ends sooner or later, and the next begins anew."""
        while True:
            current = self.get(kind, name)
            yield current
            if current is None:
                return
            query = {
                "watch": "1",
                "fieldSelector": f"metadata.name={name}",
                "resourceVersion": current["metadata"]["resourceVersion"],
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(_WATCH_SECONDS),
            }
            for event in self._events(kind.path(self._within(kind)), query):
                if event["type"] == "DELETED":
                    yield None
                    return
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]
            time.sleep(0.2)  # a server that ends each watch at once is not stormed

    def _events(self, path: str, query: dict[str, str]) -> Iterator[Manifest]:
        """A watch's events until the server ends it, says that it expired (410), or is lost."""
        import urllib3
        from kubernetes import watch
        from kubernetes.client.rest import ApiException

        try:
            response = self._send("GET", path, query, None, seconds=_WATCH_SECONDS + _REQUEST_SECONDS)
            with contextlib.closing(response):
                if response.status != 200:
                    return
                for line in watch.watch.iter_resp_lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    yield event
        except (urllib3.exceptions.HTTPError, OSError, ApiException, ValueError):
            return

    def proxied(self, service: str, path: str, token: str) -> str | None:
        """What a service inside the cluster answers to a GET; None where it does not.

        Args:
            service: its name and port, as `name:port`.
            path: below its root.
            token: Ray's, sent in the header that the API server leaves alone.
        """
        where = f"/api/v1/namespaces/{self.namespace}/services/{service}/proxy{path}"
        headers = {"x-ray-authorization": f"Bearer {token}"}
        response = self._send("GET", where, {}, None, seconds=_REQUEST_SECONDS, headers=headers)
        return response.data.decode(errors="replace") if response.status == 200 else None

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        """One request and its answer.

        Raises:
            Refusal: the server says no.
            ClusterError: it does not answer, or only with errors, for two minutes.
        """
        import urllib3
        from kubernetes.client.rest import ApiException

        limit, pause = time.monotonic() + self._patience, 0.25
        while True:
            wait = pause * random.uniform(0.75, 1.25)
            try:
                response = self._send(method, path, query or {}, body, seconds=_REQUEST_SECONDS)
                if response.status < 300:
                    return dict(json.loads(response.data))
                if response.status not in _PASSING:
                    raise self._refusal(method, path, response)
                told = f"answers {response.status} ({_status_of(response).get('message', response.reason)})"
                told_to_wait = response.headers.get("Retry-After", "0")
                wait = max(wait, urllib3.Retry().parse_retry_after(told_to_wait))
            except (urllib3.exceptions.HTTPError, OSError, ApiException, json.JSONDecodeError) as error:
                told = f"does not answer ({_innermost(error)})"
            if time.monotonic() + wait > limit:
                raise ClusterError(
                    f"the API server of {self.context} {told}; is the cluster up, and does "
                    "kubectl get --raw /version work with the same kubeconfig?"
                )
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None,
        *,
        seconds: float,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send through the client's own connections and credentials; the answer is not yet read."""
        import urllib3

        sent = {"Accept": "application/json", "Content-Type": "application/json"} | (headers or {})
        parameters = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=sent, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        response = self._client.call_api(*parameters, _request_timeout=(5.0, seconds)).response
        assert isinstance(response, urllib3.BaseHTTPResponse)
        return response

    def _within(self, kind: Kind) -> str | None:
        return None if kind is NODE else self.namespace

    def _refusal(self, method: str, path: str, response: Any) -> Refusal:
        status = _status_of(response)
        message = str(status.get("message", "")).strip() or f"{method} {path}: {response.status}"
        kind = Refusal
        if response.status == 404:
            kind = NotThere
        elif status.get("reason") == "AlreadyExists":
            kind = AlreadyThere
        return kind(self._sentence(response.status, message), status=response.status)

    def _sentence(self, status: int, message: str) -> str:
        if status == 401:
            return (
                f"{self.context} does not accept your credentials, which may have expired; "
                "sign in again and try kubectl auth whoami"
            )
        if status == 403:
            return (
                f"{self.context}: {message}; ask for the Role tandem-submitter of k8s/base in "
                f"namespace {self.namespace}"
            )
        if status == 404 and message.startswith("404 page not found"):
            return (
                f"{self.context} does not know RayJobs, so KubeRay is not installed there; helm install "
                "kuberay-operator kuberay/kuberay-operator (see docs/kubernetes.md)"
            )
        if status == 404 and message.startswith("namespaces "):
            return (
                f"{self.context} has no namespace {self.namespace!r}; kubectl create namespace "
                f"{self.namespace}, or name another with --namespace"
            )
        return f"{self.context} refuses: {' '.join(message.split())}"


def _configured(context: str | None) -> tuple[Any, str, str]:
    """The client, the context's name and its namespace."""
    from kubernetes import client, config

    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and not _has_kubeconfig():
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise ClusterError(f"inside a cluster, but without credentials for it: {error}") from error
        mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        namespace = mounted.read_text().strip() if mounted.exists() else "default"
        return client.ApiClient(_once(configuration)), "this cluster", namespace
    try:
        # Named each time: the client would keep the variable's value of when it was imported.
        file = os.environ.get("KUBECONFIG") or "~/.kube/config"
        contexts, current = config.list_kube_config_contexts(file)
        names = [entry["name"] for entry in contexts]
        if context is not None and context not in names:
            raise ClusterError(f"the kubeconfig has no context {context!r}; it has {', '.join(names)}")
        chosen = next(entry for entry in contexts if entry["name"] == (context or current["name"]))
        configuration = client.Configuration()
        config.load_kube_config(file, context=chosen["name"], client_configuration=configuration)
    except ClusterError:
        raise
    except Exception as error:  # the client raises whatever its YAML reader and its parsing do
        raise ClusterError(
            f"no usable kubeconfig ({_innermost(error)}); set KUBECONFIG to one, or write ~/.kube/config"
        ) from error
    namespace = (chosen.get("context") or {}).get("namespace") or "default"
    return client.ApiClient(_once(configuration)), f"context {chosen['name']}", namespace


def _has_kubeconfig() -> bool:
    return "KUBECONFIG" in os.environ or Path("~/.kube/config").expanduser().exists()


def _once(configuration: Any) -> Any:
    """Without retries of the client's own, which know nothing of what may pass."""
    configuration.retries = False
    return configuration


def _status_of(response: Any) -> Manifest:
    try:
        status = json.loads(response.data)
    except ValueError:
        return {"message": response.data.decode(errors="replace").strip()}
    return status if isinstance(status, dict) else {}


def _innermost(error: BaseException) -> str:
    while (cause := error.__cause__ or getattr(error, "reason", None)) and isinstance(cause, BaseException):
        error = cause
    return " ".join(str(error).split())[-160:] or type(error).__name__

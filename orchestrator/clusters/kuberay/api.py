"""Requests to the Kubernetes API through the official client, with plain dictionaries as objects.

Temporary errors (no answer, throttling, an error of the server) are retried, after the first answer for two minutes.
Other errors are a `Refusal` with the API's own reason in it.

The module is long because one class makes every kind of request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import random
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from orchestrator.clusters.kuberay.kubeconfig import configured, innermost
from orchestrator.clusters.kuberay.objects import Manifest
from trainers.errors import ClusterError

_RETRY_SECONDS = 120.0
_FIRST_RETRY_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 10.0
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 60
_PAGE = 500
_TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of object, with its path in the API."""

    name: str
    plural: str
    api: str = "v1"
    """Group and version."""

    @property
    def resource(self) -> str:
        """Its name in roles."""
        group = self.api.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of a namespace's objects; without a namespace, of all objects of the kind."""
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
LOCAL_QUEUE = Kind("LocalQueue", "localqueues", "kueue.x-k8s.io/v1beta2")
WORKLOAD = Kind("Workload", "workloads", "kueue.x-k8s.io/v1beta2")
OLDER = {LOCAL_QUEUE.api: "kueue.x-k8s.io/v1beta1"}
"""Where a cluster does not serve a version, the older one that it may serve."""
ACCESS_REVIEW = Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", "authorization.k8s.io/v1")


class Refusal(ClusterError):
    """The API refused a request; `status` is the HTTP status."""

    def __init__(self, sentence: str, *, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class NotFound(Refusal):
    """There is no such object, kind or namespace."""


class AlreadyExists(Refusal):
    """There is an object of this name."""


class _TemporaryError(Exception):
    """A request failed in a way that a later one may not."""

    def __init__(self, problem: str, *, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class KubernetesApi:
    """The control plane of one context of the kubeconfig, or of the cluster that this runs in."""

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Read the configuration and ask the server for its version.

        Args:
            context: of the kubeconfig; its current one when left out.
            namespace: the context's own when left out.

        Raises:
            ClusterError: there is no usable configuration, or nothing answers.
        """
        self._client, self.context, own = configured(context)
        self.namespace = namespace or own
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self.version = str(self.request("GET", "/version")["gitVersion"])
        self._retry_seconds = _RETRY_SECONDS

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """An object, or None where there is none."""
        try:
            return self.request("GET", kind.path(self._within(kind), name))
        except NotFound:
            return None

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[Manifest]:
        """All objects that match the selectors, read page by page."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        query = {name: value for name, value in query.items() if value}
        found: list[Manifest] = []
        while True:
            try:
                page = self.request("GET", kind.path(self._within(kind)), query)
            except Refusal as refusal:
                if refusal.status != 410 or "continue" not in query:
                    raise
                del query["continue"]  # the list changed while it was read: start again
                found = []
                continue
            found += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return found
            query["continue"] = token

    def create(self, kind: Kind, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object; unknown fields are an error.

        Raises:
            AlreadyExists: there is an object of this name.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("POST", kind.path(self._within(kind)), query, manifest)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object if it exists, without waiting for its end."""
        with contextlib.suppress(NotFound):
            self.request("DELETE", kind.path(self._within(kind), name), {"propagationPolicy": "Background"})

    def may(self, verb: str, kind: Kind) -> bool:
        """Whether these credentials allow a verb on a kind in the namespace."""
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
        """An object now, after each change, and at least every so many seconds; None after it is deleted."""
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
            except Exception as error:  # without this, the reader of the queue would wait for ever
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
        """An object now and after each change, from successive watches, since the server ends each after a while."""
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
            time.sleep(0.2)  # limits the rate if the server ends each watch at once

    def _events(self, path: str, query: dict[str, str]) -> Iterator[Manifest]:
        """A watch's events until the server ends it, the watch expires (410), or the connection is lost."""
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
        """The answer of a service inside the cluster to a GET; None if it does not answer with success.

        Args:
            service: its name and port, as `name:port`.
            path: below the service's root.
            token: Ray's, sent in a header that the API server passes on.

        Raises:
            Refusal: these credentials may not reach services.
        """
        where = f"/api/v1/namespaces/{self.namespace}/services/{service}/proxy{path}"
        headers = {"x-ray-authorization": f"Bearer {token}"}
        response = self._send("GET", where, {}, None, seconds=_REQUEST_SECONDS, headers=headers)
        if response.status == 403 and "services/proxy" in str(_status_of(response).get("message")):
            raise self._refusal("GET", where, response)
        return response.data.decode(errors="replace") if response.status == 200 else None

    def pod_log(
        self, pod: str, container: str, *, lines: int | None = None, previous: bool = False
    ) -> str | None:
        """A container's log, or its last lines; None if it cannot be read.

        Args:
            pod: its name.
            container: its name.
            lines: how many of the last; all if left out.
            previous: whether to read the log of the container's last run instead of the present one.
        """
        query = {"container": container} | ({"previous": "true"} if previous else {})
        if lines is not None:
            query["tailLines"] = str(lines)
        path = f"{POD.path(self.namespace, pod)}/log"
        response = self._send("GET", path, query, None, seconds=_REQUEST_SECONDS)
        return response.data.decode(errors="replace") if response.status == 200 else None

    def request(
        self, method: str, path: str, query: dict[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        """One request and its answer.

        Raises:
            Refusal: the server refuses it.
            ClusterError: the server does not answer, or only with temporary errors, for two minutes.
        """
        import tenacity

        backoff = tenacity.wait_exponential(multiplier=0.25, max=_LONGEST_PAUSE_SECONDS)

        def pause(state: tenacity.RetryCallState) -> float:
            failed = state.outcome.exception() if state.outcome else None
            asked = failed.retry_after if isinstance(failed, _TemporaryError) else 0
            return max(backoff(state) * random.uniform(0.75, 1.25), asked)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TemporaryError),
            wait=pause,
            stop=tenacity.stop_before_delay(self._retry_seconds),
            reraise=True,
        )
        try:
            return retrying(self._request_once, method, path, query or {}, body)
        except _TemporaryError as error:
            raise ClusterError(
                f"the API server of {self.context} {error}; is the cluster up, and does "
                "kubectl get --raw /version work with the same kubeconfig?"
            ) from error

    def _request_once(self, method: str, path: str, query: dict[str, str], body: Manifest | None) -> Manifest:
        import urllib3
        from kubernetes.client.rest import ApiException

        try:
            response = self._send(method, path, query, body, seconds=_REQUEST_SECONDS)
            if response.status < 300:
                return dict(json.loads(response.data))
        except (urllib3.exceptions.HTTPError, OSError, ApiException, json.JSONDecodeError) as error:
            raise _TemporaryError(f"does not answer ({innermost(error)})") from error
        if response.status not in _TEMPORARY:
            raise self._refusal(method, path, response)
        message = _status_of(response).get("message", response.reason)
        retry_after = 0.0
        with contextlib.suppress(urllib3.exceptions.InvalidHeader):
            retry_after = urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
        raise _TemporaryError(f"answers {response.status} ({message})", retry_after=retry_after)

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
        """Send a request with the client's connections and credentials; the body of the answer is not read yet."""
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
            kind = NotFound
        elif status.get("reason") == "AlreadyExists":
            kind = AlreadyExists
        return kind(self._sentence(response.status, message), status=response.status)

    def _sentence(self, status: int, message: str) -> str:
        if status == 401:
            return (
                f"{self.context} does not accept your credentials, which may have expired; "
                "sign in again and try kubectl auth whoami"
            )
        if status == 403:
            return self._forbidden(" ".join(message.split()))
        if status == 404 and message.startswith("404 page not found"):
            return (
                f"{self.context} has no RayJobs, so KubeRay is not installed there; helm install "
                "kuberay-operator kuberay/kuberay-operator (see docs/kubernetes.md)"
            )
        if status == 404 and message.startswith("namespaces "):
            return (
                f"{self.context} has no namespace {self.namespace!r}; kubectl create namespace "
                f"{self.namespace}, or name another with --namespace"
            )
        return f"{self.context} refuses: {' '.join(message.split())}"

    def _forbidden(self, message: str) -> str:
        """Which of the causes of a 403 it is: a quota, a namespace, admission, or a permission that is missing."""
        where = f"namespace {self.namespace}"
        if "exceeded quota" in message:
            return (
                f"{self.context}: {message}; this is a quota of {where}, not a permission: remove jobs that have "
                "ended (tandem list, tandem cancel JOB), or ask for a larger one"
            )
        if "is being terminated" in message:
            return f"{self.context}: {where} is being deleted; wait until it is gone, or name another"
        denied = re.search(r'cannot (\w+) resource "([^"]+)"', message)
        if denied is None:
            return (
                f"{self.context} does not admit the object: {message}; change that, or ask its administrator"
            )
        if self._lacks_namespace():
            return self._sentence(404, f"namespaces {self.namespace!r} not found")
        role = "tandem-log-reader" if denied[2] in ("secrets", "services/proxy") else "tandem-submitter"
        return f"{self.context}: {message}; ask for the Role {role} of k8s/base in {where}"

    def _lacks_namespace(self) -> bool:
        """Whether the namespace is known not to exist."""
        path = f"/api/v1/namespaces/{self.namespace}"
        return bool(self._send("GET", path, {}, None, seconds=_REQUEST_SECONDS).status == 404)


def _status_of(response: Any) -> Manifest:
    try:
        status = json.loads(response.data)
    except ValueError:
        return {"message": response.data.decode(errors="replace").strip()}
    return status if isinstance(status, dict) else {}

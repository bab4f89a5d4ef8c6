"""The client of the Kubernetes API as the kubeconfig or the pod configures it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainers.errors import ClusterError


def configured(context: str | None) -> tuple[Any, str, str]:
    """The client, the context's name and its namespace."""
    from kubernetes import client, config

    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and not _has_kubeconfig():
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise ClusterError(f"this pod has no credentials for its cluster: {error}") from error
        mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        namespace = mounted.read_text().strip() if mounted.exists() else "default"
        return client.ApiClient(_without_retries(configuration)), "this cluster", namespace
    try:
        # The client reads KUBECONFIG only when it is imported, so the file is named here.
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
    except Exception as error:  # the client raises errors of many kinds for a file that it cannot read
        raise ClusterError(
            f"no usable kubeconfig ({innermost(error)}); set KUBECONFIG to a file, or write ~/.kube/config"
        ) from error
    namespace = (chosen.get("context") or {}).get("namespace") or "default"
    return client.ApiClient(_without_retries(configuration)), f"context {chosen['name']}", namespace


def _has_kubeconfig() -> bool:
    return "KUBECONFIG" in os.environ or Path("~/.kube/config").expanduser().exists()


def _without_retries(configuration: Any) -> Any:
    """Turn off the client's own retries, which do not know which errors are temporary."""
    configuration.retries = False
    return configuration


def innermost(error: BaseException) -> str:
    """The message of an error's first cause."""
    while (cause := error.__cause__ or getattr(error, "reason", None)) and isinstance(cause, BaseException):
        error = cause
    return " ".join(str(error).split())[-160:] or type(error).__name__

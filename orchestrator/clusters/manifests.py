"""From an experiment to the objects that KubeRay runs it from. Pure: what is printed is what is sent."""

from __future__ import annotations

import importlib.metadata
from pathlib import PurePosixPath
from typing import Any

from orchestrator.clusters.kubernetes_spec import Kubernetes, Pod, WorkerGroup, resources
from orchestrator.clusters.package import Package
from trainers.errors import InputError

Manifest = dict[str, Any]

_JOB_DIRECTORY = "/tandem/job"
_LARGEST_CONFIG_MAP = 1 << 20
_USER = 1000
_UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_WRITABLE = {"shared-memory": "/dev/shm", "scratch": "/tmp"}


def render(package: Package) -> list[Manifest]:
    """A ConfigMap with the experiment and the user's modules, and the RayJob that trains it.

    Raises:
        InputError: the experiment has no `kubernetes:` block, its modules are too large, or its results
            would be gone with the pods.
    """
    settings = package.experiment.kubernetes
    if settings is None:
        raise InputError("the experiment has no kubernetes: block; give one with at least an image")
    storage = package.experiment.storage
    if "://" not in storage and not any(_is_below(storage, claim.path) for claim in settings.claims):
        raise InputError(
            f"storage {storage!r} is inside the pods and would be gone with them; give a URL such as s3://, "
            "or a directory below the path of one of kubernetes.claims"
        )
    return [_config_map(package, settings), _ray_job(package, settings)]


def _is_below(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)


def _metadata(package: Package, settings: Kubernetes) -> Manifest:
    labels = {
        "app.kubernetes.io/name": "tandem",
        "app.kubernetes.io/managed-by": "tandem",
        "tandem/experiment": package.experiment.name,
    }
    if settings.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = settings.queue
    if settings.priority is not None:
        labels["kueue.x-k8s.io/priority-class"] = settings.priority
    return {"name": package.job_id, "namespace": settings.namespace, "labels": labels}


def _config_map(package: Package, settings: Kubernetes) -> Manifest:
    files = package.files()
    size = sum(len(text) for text in files.values())
    if size > _LARGEST_CONFIG_MAP - 4096:
        raise InputError(
            f"the experiment and its modules have {size >> 10} KiB, more than a ConfigMap holds; "
            "put the modules into the image"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(package, settings),
        "immutable": True,
        "data": files,
    }


def _ray_job(package: Package, settings: Kubernetes) -> Manifest:
    spec: Manifest = {
        # The other modes take the end of a log stream for the job's.
        "submissionMode": "HTTPMode",
        "entrypoint": f"python -m orchestrator.remote {_JOB_DIRECTORY}",
        "jobId": package.job_id,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": settings.keep_seconds,
        "preRunningDeadlineSeconds": settings.start_seconds,
        "backoffLimit": settings.retries,
        "rayClusterSpec": _ray_cluster(package, settings),
    }
    if settings.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.deadline_seconds
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(package, settings),
        "spec": spec,
    }


def _ray_cluster(package: Package, settings: Kubernetes) -> Manifest:
    cluster: Manifest = {
        "rayVersion": settings.ray_version or importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": settings.autoscales,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},  # nothing trains beside the driver
            "template": _template(package, settings, settings.head, "ray-head"),
        },
        "workerGroupSpecs": [_worker_group(package, settings, group) for group in settings.workers],
    }
    if settings.autoscales:
        cluster["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": settings.idle_seconds,
            "securityContext": _UNPRIVILEGED,
        }
    return cluster


def _worker_group(package: Package, settings: Kubernetes, group: WorkerGroup) -> Manifest:
    return {
        "groupName": group.name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "numOfHosts": group.hosts,
        "rayStartParams": {},
        "template": _template(package, settings, group, "ray-worker"),
    }


def _template(package: Package, settings: Kubernetes, pod: Pod, container: str) -> Manifest:
    is_head = container == "ray-head"
    spec: Manifest = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": container,
                "image": settings.image,
                "resources": resources(pod),
                "securityContext": _UNPRIVILEGED | {"readOnlyRootFilesystem": True},
                "env": [{"name": "HOME", "value": _WRITABLE["scratch"]}],
                "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
                "volumeMounts": _mounts(settings),
            }
        ],
        "volumes": _volumes(package, settings, pod),
    }
    if not (is_head and settings.autoscales):  # the autoscaler beside the head talks to Kubernetes
        spec["automountServiceAccountToken"] = False
    if settings.service_account is not None:
        spec["serviceAccountName"] = settings.service_account
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if pod.node_selector:
        spec["nodeSelector"] = pod.node_selector
    if pod.tolerations:
        spec["tolerations"] = [taint.model_dump(exclude_none=True) for taint in pod.tolerations]
    return {"metadata": {"labels": {"tandem/experiment": package.experiment.name}}, "spec": spec}


def _mounts(settings: Kubernetes) -> list[Manifest]:
    return [
        *({"name": name, "mountPath": path} for name, path in _WRITABLE.items()),
        {"name": "job", "mountPath": _JOB_DIRECTORY, "readOnly": True},
        *({"name": f"claim-{place}", "mountPath": claim.path} for place, claim in enumerate(settings.claims)),
    ]


def _volumes(package: Package, settings: Kubernetes, pod: Pod) -> list[Manifest]:
    shared = max(1, pod.memory_gib // 3)
    return [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "job", "configMap": {"name": package.job_id}},
        *(
            {"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": claim.claim}}
            for place, claim in enumerate(settings.claims)
        ),
    ]

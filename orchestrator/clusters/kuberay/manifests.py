"""From an experiment to the objects that KubeRay runs it from. Pure: what is printed is what is sent."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import PurePosixPath

import yaml

from orchestrator.clusters.job_bundle import ENTRYPOINT, FILES_VARIABLE, Package, attempt_id
from orchestrator.clusters.kuberay.cron import check_schedule
from orchestrator.clusters.kubernetes_objects import Manifest
from orchestrator.experiment.kubernetes import Kubernetes, Pod, Redis, WorkerGroup, resources
from trainers.errors import InputError

RESULTS = "tandem/results"
"""Annotation: where the records and the report are kept."""
EXPERIMENT = "tandem/experiment"
"""Label: the experiment's name."""
JOB = "tandem/job"
"""Label: the job's id, the same for all attempts at the same work."""

_JOB_DIRECTORY = "/tandem/job"
_LARGEST_CONFIG_MAP = 1 << 20
_LARGEST_VARIABLE = 96 << 10
"""Linux takes 128 KiB in one environment variable."""
_USER = 1000
_UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_WRITABLE = {"shared-memory": "/dev/shm", "scratch": "/tmp"}


def render(package: Package, *, namespace: str | None = None, attempt: int = 1) -> list[Manifest]:
    """The RayJob that trains an experiment, and a ConfigMap with the experiment and the user's modules.

    On a cluster that stands already there is no pod to mount a ConfigMap in: they go in the job's environment.

    Args:
        package: what to run.
        namespace: for an experiment that names none.
        attempt: at the same work, from 1; a further one gets a name of its own.

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
    name = attempt_id(package.job_id, attempt)
    metadata = _metadata(package, settings, name, settings.namespace or namespace)
    if settings.cluster is not None:
        return [_job_on_a_standing_cluster(package, settings.cluster, metadata)]
    return [_config_map(package, metadata), _ray_job(package, settings, metadata)]


def render_nightly(package: Package, *, schedule: str, namespace: str | None = None) -> list[Manifest]:
    """A ConfigMap and a RayCronJob that trains an experiment anew at each time of a schedule.

    Raises:
        InputError: as `render`; or the experiment runs on a cluster that stands already, or waits in a queue,
            whose label a RayCronJob cannot pass on; or KubeRay cannot read the schedule.
    """
    check_schedule(schedule)
    settings = package.experiment.kubernetes
    if settings is not None and (settings.cluster is not None or settings.queue is not None):
        raise InputError("--cron: a RayCronJob takes neither kubernetes.cluster nor kubernetes.queue")
    config_map, job = render(package, namespace=namespace)
    del job["spec"]["jobId"]
    cron = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": job["metadata"] | {"name": package.nightly_id},
        "spec": {"schedule": schedule, "jobTemplate": job["spec"]},
    }
    return [config_map, cron]


def _is_below(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)


def _metadata(package: Package, settings: Kubernetes, name: str, namespace: str | None) -> Manifest:
    labels = {
        "app.kubernetes.io/name": "tandem",
        "app.kubernetes.io/managed-by": "tandem",
        EXPERIMENT: package.experiment.name,
        JOB: package.job_id,
    }
    if settings.queue is not None:
        labels |= _queue_labels(settings, settings.queue, name)
    metadata: Manifest = {"name": name, "labels": labels, "annotations": {RESULTS: package.results}}
    return metadata if namespace is None else metadata | {"namespace": namespace}


def _queue_labels(settings: Kubernetes, queue: str, name: str) -> dict[str, str]:
    labels = {
        "kueue": {"kueue.x-k8s.io/queue-name": queue},
        "volcano": {"volcano.sh/queue-name": queue},
        "yunikorn": {
            "yunikorn.apache.org/queue": queue,
            "yunikorn.apache.org/app-id": name,
            "ray.io/gang-scheduling-enabled": "true",
        },
    }[settings.scheduler]
    if settings.priority is not None:
        key = (
            "kueue.x-k8s.io/priority-class" if settings.scheduler == "kueue" else "ray.io/priority-class-name"
        )
        labels[key] = settings.priority
    return labels


def _config_map(package: Package, metadata: Manifest) -> Manifest:
    files = package.files()
    size = sum(len(text.encode()) for text in files.values())
    if size > _LARGEST_CONFIG_MAP - 4096:
        raise InputError(
            f"the experiment and its modules have {size >> 10} KiB, more than a ConfigMap holds; "
            "put the modules into the image"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": files,
    }


def _job_on_a_standing_cluster(package: Package, cluster: str, metadata: Manifest) -> Manifest:
    files = json.dumps(package.files())
    if len(files.encode()) > _LARGEST_VARIABLE:
        raise InputError(
            f"the experiment and its modules have {len(files) >> 10} KiB, more than a job's environment holds; "
            "put the modules into the cluster's image"
        )
    spec = {
        "submissionMode": "HTTPMode",
        "entrypoint": f"{ENTRYPOINT} {metadata['name']}",
        "jobId": metadata["name"],
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": {FILES_VARIABLE: files}}),
        "clusterSelector": {"ray.io/cluster": cluster},
        "backoffLimit": 0,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def _ray_job(package: Package, settings: Kubernetes, metadata: Manifest) -> Manifest:
    name = metadata["name"]
    spec: Manifest = {
        # The other modes take the end of a log stream for the job's.
        "submissionMode": "HTTPMode",
        "entrypoint": f"{ENTRYPOINT} {name} {_JOB_DIRECTORY}",
        "jobId": name,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": settings.keep_seconds,
        "preRunningDeadlineSeconds": settings.start_seconds,
        "backoffLimit": 0 if package.is_check else settings.retries,
        "rayClusterSpec": _ray_cluster(package, settings, name),
    }
    if settings.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.deadline_seconds
    if settings.suspended and not package.is_check:
        spec["suspend"] = True
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def _ray_cluster(package: Package, settings: Kubernetes, name: str) -> Manifest:
    cluster: Manifest = {
        "rayVersion": settings.ray_version or importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": settings.autoscales,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},  # nothing trains beside the driver
            "template": _template(package, settings, settings.head, "ray-head", name),
        },
        "workerGroupSpecs": []
        if package.is_check
        else [_worker_group(package, settings, group, name) for group in settings.workers],
    }
    if settings.autoscales:
        cluster["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": settings.idle_seconds,
            "securityContext": _UNPRIVILEGED,
        }
    if settings.redis is not None and not package.is_check:
        cluster["gcsFaultToleranceOptions"] = _outliving(settings.redis)
    return cluster


def _outliving(redis: Redis) -> Manifest:
    """With no externalStorageNamespace KubeRay takes the RayCluster's uid: none wakes with another's state."""
    options: Manifest = {"redisAddress": redis.address}
    if redis.secret is not None:
        reference = {"secretKeyRef": {"name": redis.secret, "key": "password"}}
        options["redisPassword"] = {"valueFrom": reference}
    return options


def _worker_group(package: Package, settings: Kubernetes, group: WorkerGroup, name: str) -> Manifest:
    return {
        "groupName": group.name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "numOfHosts": group.hosts,
        "rayStartParams": {},
        "template": _template(package, settings, group, "ray-worker", name),
    }


def _template(package: Package, settings: Kubernetes, pod: Pod, container: str, name: str) -> Manifest:
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
        "volumes": _volumes(settings, pod, name),
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
    return {"metadata": {"labels": {EXPERIMENT: package.experiment.name}}, "spec": spec}


def _mounts(settings: Kubernetes) -> list[Manifest]:
    return [
        *({"name": name, "mountPath": path} for name, path in _WRITABLE.items()),
        {"name": "job", "mountPath": _JOB_DIRECTORY, "readOnly": True},
        *({"name": f"claim-{place}", "mountPath": claim.path} for place, claim in enumerate(settings.claims)),
    ]


def _volumes(settings: Kubernetes, pod: Pod, name: str) -> list[Manifest]:
    shared = max(1, pod.memory_gib // 3)
    return [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "job", "configMap": {"name": name}},
        *(
            {"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": claim.claim}}
            for place, claim in enumerate(settings.claims)
        ),
    ]

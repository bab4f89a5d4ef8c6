"""The objects that KubeRay runs a job from. `tandem render` prints exactly what `tandem submit` sends.

The module is long because it describes all parts of one RayJob.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
from pathlib import PurePosixPath

import yaml

from orchestrator.clusters.job_bundle import JobBundle, attempt_id
from orchestrator.clusters.kuberay.cron import check_schedule
from orchestrator.clusters.kuberay.objects import Manifest
from orchestrator.experiment.kubernetes import Kubernetes, Pod, Redis, WorkerGroup, resources
from orchestrator.planning.job import ENTRYPOINT, FILES_VARIABLE
from trainers.errors import InputError

RESULTS = "tandem/results"
"""Annotation: URL or directory of the records and the report."""
EXPERIMENT = "tandem/experiment"
"""Label: the experiment's name."""
JOB = "tandem/job"
"""Label: the job's id, equal for all attempts at the same work."""
NIGHTLY = "ray.io/cronjob-name"
"""Label that KubeRay gives to the jobs of a RayCronJob, which have none of the labels above."""
METADATA = {EXPERIMENT: "tandem-experiment", RESULTS: "tandem-results"}
"""Keys of the Ray job's own metadata, which the jobs of a RayCronJob have too."""
KEEP_SECONDS = "tandem/keep-seconds"
"""Annotation: how long the object of a finished job is kept, where the operator does not delete it by itself."""

CLAIM_CONTAINER = "results"
_ELASTIC = "kueue.x-k8s.io/elastic-job"
"""Annotation: Kueue admits each change of a cluster that autoscales."""
_JOB_DIRECTORY = "/tandem/job"
_LEAST_KEEP_SECONDS = 30
"""Within this time, who follows a job sees how it ended."""
_LARGEST_CONFIG_MAP = 1 << 20
_LARGEST_VARIABLE = 96 << 10
"""Linux allows 128 KiB in one environment variable."""
_USER = 1000
_UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_WRITABLE = {"shared-memory": "/dev/shm", "scratch": "/tmp"}


def render(
    bundle: JobBundle,
    *,
    namespace: str | None = None,
    attempt: int = 1,
    deletion_rules: bool = True,
) -> list[Manifest]:
    """A ConfigMap with the experiment and the user's modules, and the RayJob that mounts it.

    On an existing RayCluster no pod can mount a ConfigMap, so the files are in the job's environment. They are there
    with Redis, too: KubeRay's clean-up pod has the head's volumes, and starts after the ConfigMap was deleted.

    Args:
        bundle: the job.
        namespace: for an experiment that names none.
        attempt: which attempt at the same work this is, counted from 1; each has a name of its own.
        deletion_rules: whether the operator has them, as KubeRay does by default from 1.6.

    Raises:
        InputError: the experiment has no `kubernetes:` block, its modules are too large, or its results
            would be deleted with the pods.
    """
    settings = bundle.spec.experiment.kubernetes
    if settings is None:
        raise InputError("the experiment has no kubernetes: block; give one with at least an image")
    storage = bundle.spec.experiment.storage
    if "://" not in storage and not any(_is_below(storage, claim.path) for claim in settings.claims):
        raise InputError(
            f"storage {storage!r} is inside the pods and would be deleted with them; give a URL such as s3://, "
            "or a directory below the path of one of kubernetes.claims"
        )
    name = attempt_id(bundle.job_id, attempt)
    metadata = _metadata(bundle, settings, name, settings.namespace or namespace)
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata}
    job["spec"] = _job_spec(bundle, settings, name) | _ending(settings, deletion_rules)
    return [_config_map(bundle, metadata), job] if _has_config_map(settings) else [job]


def render_nightly(bundle: JobBundle, *, schedule: str, namespace: str | None = None) -> list[Manifest]:
    """A ConfigMap and a RayCronJob that trains the experiment again at each time of a schedule.

    Raises:
        InputError: as `render`; or the experiment runs on an existing RayCluster, or in a queue, whose label a
            RayCronJob cannot pass on; or KubeRay cannot read the schedule.
    """
    check_schedule(schedule)
    settings = bundle.spec.experiment.kubernetes
    if settings is not None and (settings.cluster is not None or settings.queue is not None):
        raise InputError("--cron: a RayCronJob supports neither kubernetes.cluster nor kubernetes.queue")
    *config_map, job = render(bundle, namespace=namespace)
    del job["spec"]["jobId"]
    cron = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": job["metadata"] | {"name": bundle.nightly_id},
        "spec": {"schedule": schedule, "jobTemplate": job["spec"]},
    }
    return [*config_map, cron]


def claim_pod(bundle: JobBundle, *, name: str, namespace: str, command: list[str]) -> Manifest:
    """A pod that sees an experiment's claims and nothing else, and runs one command.

    Raises:
        InputError: the experiment has no `kubernetes:` block.
    """
    settings = bundle.spec.experiment.kubernetes
    if settings is None:
        raise InputError("the experiment has no kubernetes: block; give one with at least an image")
    amounts = {"cpu": "500m", "memory": "512Mi"}
    spec = _pod_spec(settings) | {
        "automountServiceAccountToken": False,
        "containers": [
            _container(settings, CLAIM_CONTAINER)
            | {
                "command": command,
                "resources": {"requests": amounts, "limits": amounts},
                "volumeMounts": _claim_mounts(settings),
            }
        ],
        "volumes": _claim_volumes(settings),
    }
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "tandem"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _is_below(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)


def _metadata(bundle: JobBundle, settings: Kubernetes, name: str, namespace: str | None) -> Manifest:
    labels = settings.labels | {
        "app.kubernetes.io/name": "tandem",
        "app.kubernetes.io/managed-by": "tandem",
        EXPERIMENT: bundle.spec.experiment.name,
        JOB: bundle.job_id,
    }
    if settings.queue is not None:
        labels |= _queue_labels(settings, settings.queue, name)
    annotations = settings.annotations | {
        RESULTS: bundle.spec.results,
        KEEP_SECONDS: str(settings.keep_seconds),
    }
    if settings.queue is not None and settings.scheduler == "kueue" and settings.autoscales:
        annotations[_ELASTIC] = "true"
    metadata: Manifest = {"name": name, "labels": labels, "annotations": annotations}
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


def _config_map(bundle: JobBundle, metadata: Manifest) -> Manifest:
    files = bundle.files()
    size = sum(len(text.encode()) for text in files.values())
    if size > _LARGEST_CONFIG_MAP - 4096:
        raise InputError(
            f"the experiment and its modules have {size >> 10} KiB, more than a ConfigMap can hold; "
            "put the modules into the image"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {_key(name): text for name, text in files.items()},
    }


def _files_in_place(bundle: JobBundle, name: str) -> Manifest:
    """The ConfigMap as a volume, with the modules of packages in directories of their own."""
    files = bundle.files()
    if not any("/" in file for file in files):
        return {"name": name}
    return {"name": name, "items": [{"key": _key(file), "path": file} for file in sorted(files)]}


def _key(name: str) -> str:
    """The key of a file in the ConfigMap, which allows no slash."""
    return name.replace("/", "--")


def _has_config_map(settings: Kubernetes) -> bool:
    return settings.cluster is None and settings.redis is None


def _environment(bundle: JobBundle) -> str:
    """A runtime environment that holds the job's files."""
    files = json.dumps(bundle.files())
    if len(files.encode()) > _LARGEST_VARIABLE:
        raise InputError(
            f"the experiment and its own modules have {len(files) >> 10} KiB, more than a job's environment can hold; "
            "it holds them where kubernetes.cluster or kubernetes.redis is set, so leave that out, or move code into "
            "the image"
        )
    return yaml.safe_dump({"env_vars": {FILES_VARIABLE: files}})


def _job_spec(bundle: JobBundle, settings: Kubernetes, name: str) -> Manifest:
    spec: Manifest = {
        # In the other modes KubeRay mistakes the end of a log stream for the end of the job.
        "submissionMode": "HTTPMode",
        "entrypoint": f"{ENTRYPOINT} {name}",
        "jobId": name,
        "metadata": {
            METADATA[EXPERIMENT]: bundle.spec.experiment.name,
            METADATA[RESULTS]: bundle.spec.results,
        },
    }
    if _has_config_map(settings):
        spec["entrypoint"] += f" {_JOB_DIRECTORY}"
    else:
        spec["runtimeEnvYAML"] = _environment(bundle)
    if settings.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.deadline_seconds
    if settings.cluster is not None:
        return spec | {"backoffLimit": 0, "clusterSelector": {"ray.io/cluster": settings.cluster}}
    retries = 0 if bundle.spec.is_check else settings.retries
    spec |= {
        # KubeRay counts it anew for each attempt; start_seconds is for all of them together.
        "preRunningDeadlineSeconds": math.ceil(settings.start_seconds / (retries + 1)),
        "backoffLimit": retries,
        "rayClusterSpec": _ray_cluster(bundle, settings, name),
    }
    if settings.suspended and not bundle.spec.is_check:
        spec["suspend"] = True
    return spec


def _ending(settings: Kubernetes, deletion_rules: bool) -> Manifest:
    """What the operator deletes after the job's end: its own cluster at once, the RayJob after `keep_seconds`.

    A job that may be suspended, which Kueue does, cannot have deletion rules.
    """
    owns_cluster = settings.cluster is None
    is_suspended = settings.suspended or (settings.queue is not None and settings.scheduler == "kueue")
    if not deletion_rules or is_suspended:
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 0} if owns_cluster else {}
    ends = ({"jobStatus": "SUCCEEDED"}, {"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"})
    keep_seconds = max(settings.keep_seconds, _LEAST_KEEP_SECONDS)
    delays = ({"DeleteCluster": 0} if owns_cluster else {}) | {"DeleteSelf": keep_seconds}
    rules = [
        {"policy": policy, "condition": end | {"ttlSeconds": seconds}}
        for policy, seconds in delays.items()
        for end in ends
    ]
    return {"deletionStrategy": {"deletionRules": rules}}


def _ray_cluster(bundle: JobBundle, settings: Kubernetes, name: str) -> Manifest:
    cluster: Manifest = {
        "rayVersion": settings.ray_version or importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": settings.autoscales,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},  # no worker runs beside the driver
            "template": _template(bundle, settings, settings.head, "ray-head", name),
        },
        "workerGroupSpecs": []
        if bundle.spec.is_check
        else [_worker_group(bundle, settings, group, name) for group in settings.workers],
    }
    if settings.autoscales:
        cluster["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": settings.idle_seconds,
            "securityContext": _UNPRIVILEGED,
        }
    if settings.redis is not None and not bundle.spec.is_check:
        cluster["gcsFaultToleranceOptions"] = _fault_tolerance(settings.redis)
    if settings.rocksdb is not None and not bundle.spec.is_check:
        volume: Manifest = {"size": f"{settings.rocksdb.size_gib}Gi", "deletionPolicy": "DeleteWithCluster"}
        if settings.rocksdb.storage_class is not None:
            volume["storageClassName"] = settings.rocksdb.storage_class
        cluster["gcsFaultToleranceOptions"] = {"backend": "rocksdb", "storage": volume}
    if settings.history_server is not None:
        cluster["historyServerOptions"] = {"collectorOptions": {"image": settings.history_server}}
    return cluster


def _fault_tolerance(redis: Redis) -> Manifest:
    """Without externalStorageNamespace, KubeRay uses the RayCluster's uid, so that clusters never share GCS state."""
    options: Manifest = {"redisAddress": redis.address}
    if redis.secret is not None:
        reference = {"secretKeyRef": {"name": redis.secret, "key": "password"}}
        options["redisPassword"] = {"valueFrom": reference}
    return options


def _worker_group(bundle: JobBundle, settings: Kubernetes, group: WorkerGroup, name: str) -> Manifest:
    return {
        "groupName": group.name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "numOfHosts": group.hosts,
        "rayStartParams": {},
        "template": _template(bundle, settings, group, "ray-worker", name),
    }


def _template(bundle: JobBundle, settings: Kubernetes, pod: Pod, container: str, name: str) -> Manifest:
    is_head = container == "ray-head"
    spec = _pod_spec(settings) | {
        "containers": [
            _container(settings, container)
            | {
                "resources": resources(pod),
                "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
                "volumeMounts": _mounts(settings),
            }
        ],
        "volumes": _volumes(bundle, settings, pod, name),
        # The autoscaler in the head pod calls the Kubernetes API. The pod's own field overrides its account's.
        "automountServiceAccountToken": is_head and settings.autoscales,
    }
    if settings.service_account is not None:
        spec["serviceAccountName"] = settings.service_account
    if settings.priority_class is not None:
        spec["priorityClassName"] = settings.priority_class
    if settings.runtime_class is not None:
        spec["runtimeClassName"] = settings.runtime_class
    if pod.affinity:
        spec["affinity"] = pod.affinity
    if pod.node_selector:
        spec["nodeSelector"] = pod.node_selector
    if pod.tolerations:
        spec["tolerations"] = [taint.model_dump(exclude_none=True) for taint in pod.tolerations]
    metadata: Manifest = {"labels": settings.labels | {EXPERIMENT: bundle.spec.experiment.name}}
    if settings.annotations:
        metadata["annotations"] = settings.annotations
    return {"metadata": metadata, "spec": spec}


def _pod_spec(settings: Kubernetes) -> Manifest:
    """What all pods have, as the pod security level `restricted` demands it."""
    spec: Manifest = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    return spec


def _container(settings: Kubernetes, name: str) -> Manifest:
    policy = settings.image_pull_policy
    return {
        "name": name,
        "image": settings.image,
        "securityContext": _UNPRIVILEGED | {"readOnlyRootFilesystem": True},
        "env": [{"name": "HOME", "value": _WRITABLE["scratch"]}],
    } | ({} if policy is None else {"imagePullPolicy": policy})


def _mounts(settings: Kubernetes) -> list[Manifest]:
    return [
        *({"name": name, "mountPath": path} for name, path in _WRITABLE.items()),
        *(
            [{"name": "job", "mountPath": _JOB_DIRECTORY, "readOnly": True}]
            if _has_config_map(settings)
            else []
        ),
        *_claim_mounts(settings),
    ]


def _claim_mounts(settings: Kubernetes) -> list[Manifest]:
    return [
        {"name": f"claim-{place}", "mountPath": claim.path} for place, claim in enumerate(settings.claims)
    ]


def _claim_volumes(settings: Kubernetes) -> list[Manifest]:
    return [
        {"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": claim.claim}}
        for place, claim in enumerate(settings.claims)
    ]


def _volumes(bundle: JobBundle, settings: Kubernetes, pod: Pod, name: str) -> list[Manifest]:
    shared = max(1, pod.memory_gib // 3)
    return [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared}Gi"}},
        {
            "name": "scratch",
            "emptyDir": {} if pod.scratch_gib is None else {"sizeLimit": f"{pod.scratch_gib}Gi"},
        },
        *([{"name": "job", "configMap": _files_in_place(bundle, name)}] if _has_config_map(settings) else []),
        *_claim_volumes(settings),
    ]

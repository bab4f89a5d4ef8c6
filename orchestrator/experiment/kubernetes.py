"""The `kubernetes:` block of an experiment file: what pods a Ray cluster for it is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from trainers.recipes import Block

_RESERVED = ("tandem/", "app.kubernetes.io/", "ray.io/", "kueue.x-k8s.io/")
_KUEUE_POD_SETS = 18
"""Of one workload in Kueue's v1beta2; the head is one of them."""
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def _dns_label(text: str) -> str:
    if not _LABEL.fullmatch(text) or len(text) > 40:
        raise ValueError(
            f"{text!r} must be at most 40 lower-case letters, digits and hyphens, the first a letter"
        )
    return text


Label = Annotated[str, AfterValidator(_dns_label)]


class Toleration(Block):
    """A taint that pods may run in spite of, as Kubernetes writes it."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pod(Block):
    """What a pod is given and where it may run."""

    cpus: int = Field(2, gt=0)
    memory_gib: int = Field(8, gt=0, description="Of which a third is shared memory for Ray's objects.")
    node_selector: dict[str, str] = Field({}, description="Labels that its node must have.")
    tolerations: list[Toleration] = Field([], description="Taints that it may run in spite of.")
    affinity: dict[str, Any] = Field({}, description="As Kubernetes writes it.")
    ephemeral_storage_gib: int | None = Field(
        None, gt=0, description="Requested of the node's disk, and the limit."
    )
    scratch_gib: int | None = Field(None, gt=0, description="The largest size of /tmp.")


class WorkerGroup(Pod):
    """Pods that train, all alike."""

    name: Label = "workers"
    min: int = Field(0, ge=0, description="Pods that are there from the start.")
    max: int = Field(1, gt=0)
    gpus: int = Field(0, ge=0)
    gpu_resource: str = Field(
        "nvidia.com/gpu", description="Also a MIG slice, such as nvidia.com/mig-1g.10gb."
    )
    hosts: int = Field(1, gt=0, description="Pods that make one replica, for devices that span hosts.")

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}")
        if self.name == "head":
            raise ValueError("a worker group cannot be called head; Kueue keeps that name for the head")
        return self


class Claim(Block):
    """A PersistentVolumeClaim and where every pod sees it."""

    claim: str
    path: str = Field(pattern="^/")


class Redis(Block):
    """Where Ray's own state is kept, so that a new head goes on where the old one ended."""

    address: str = Field(description="Such as redis:6379.")
    secret: str | None = Field(None, description="A Secret with the key `password`.")


class Volume(Block):
    """A volume that KubeRay creates for the head."""

    size_gib: int = Field(1, gt=0)
    storage_class: str | None = Field(None, description="The cluster's default class when left out.")


class Kubernetes(Block):
    """A Ray cluster made for one experiment by KubeRay, and gone after it."""

    image: str = Field(min_length=1, description="Holds tandem, Ray and both frameworks.")
    ray_version: str | None = Field(None, description="Of the image; the one installed here when left out.")
    namespace: Label | None = Field(None, description="The kubeconfig context's own when left out.")
    head: Pod = Pod()
    workers: list[WorkerGroup] = Field([WorkerGroup(max=1, min=1)], min_length=1)
    idle_seconds: int = Field(120, gt=0, description="An idle worker pod is given back after so long.")
    start_seconds: int = Field(1800, gt=0, description="Give up if the pods are not there by then.")
    deadline_seconds: int | None = Field(None, gt=0, description="Give up after so long.")
    keep_seconds: int = Field(600, ge=0, description="Keep the finished job's object for so long.")
    retries: int = Field(2, ge=0, description="New clusters after a failure; each goes on from the records.")
    suspended: bool = Field(False, description="Only create the job; somebody or something else starts it.")
    scheduler: Literal["kueue", "volcano", "yunikorn"] = Field("kueue", description="Whose queue it is.")
    queue: str | None = Field(None, description="Where the job waits for all of its pods' room at once.")
    priority: str | None = Field(None, description="The scheduler's priority class.")
    secrets: list[str] = Field([], description="Secrets whose keys become environment variables.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    pull_secrets: list[str] = Field([], description="Secrets that the image is pulled with.")
    claims: list[Claim] = Field([], description="Volumes that every pod sees.")
    service_account: str | None = None
    labels: dict[str, str] = Field({}, description="Of the job and its pods.")
    annotations: dict[str, str] = Field({}, description="Of the job and its pods.")
    priority_class: str | None = Field(None, description="Of the pods; `priority` is the queue's.")
    runtime_class: str | None = Field(None, description="Of the pods, such as nvidia.")
    redis: Redis | None = Field(None, description="Lets the cluster's state outlive its head.")
    rocksdb: Volume | None = Field(
        None, description="As redis, on a volume of the head; needs KubeRay 1.7 with a feature gate."
    )
    history_server: str | None = Field(
        None,
        description="Image of the collector for Ray's history server; needs KubeRay 1.7 with a feature gate.",
    )
    cluster: Label | None = Field(None, description="A RayCluster that stands already, to run on instead.")

    @model_validator(mode="after")
    def _consistent(self) -> Kubernetes:
        names = [group.name for group in self.workers]
        if len(set(names)) < len(names):
            raise ValueError(f"workers: groups {', '.join(names)} share a name; give each its own")
        if self.queue is not None and self.scheduler == "kueue" and len(names) >= _KUEUE_POD_SETS:
            raise ValueError(
                f"queue: Kueue takes {_KUEUE_POD_SETS} sets of pods, so at most {_KUEUE_POD_SETS - 1} worker groups"
            )
        for key in (*self.labels, *self.annotations):
            if key.startswith(_RESERVED):
                raise ValueError(
                    f"labels and annotations: {key!r} is set by tandem or KubeRay; choose another"
                )
        if self.redis is not None and self.rocksdb is not None:
            raise ValueError("rocksdb: redis keeps Ray's state already; leave one of them out")
        if self.cluster is not None:
            for field in ("queue", "redis", "rocksdb", "history_server", "suspended"):
                if getattr(self, field):
                    raise ValueError(f"{field}: is for a cluster of the job's own, but cluster names one")
        return self

    @property
    def autoscales(self) -> bool:
        """Whether any group may grow."""
        return any(group.min < group.max for group in self.workers)

    @property
    def most(self) -> dict[str, float]:
        """CPUs and GPUs of all workers when every group is as large as it may be."""
        return {
            "cpus": sum(group.max * group.hosts * group.cpus for group in self.workers),
            "gpus": sum(group.max * group.hosts * group.gpus for group in self.workers),
        }


def resources(pod: Pod) -> dict[str, Any]:
    """Requests and limits alike, as Ray counts the limits and a pod that is squeezed is killed."""
    amounts: dict[str, Any] = {"cpu": str(pod.cpus), "memory": f"{pod.memory_gib}Gi"}
    if isinstance(pod, WorkerGroup) and pod.gpus:
        amounts[pod.gpu_resource] = str(pod.gpus)
    if pod.ephemeral_storage_gib is not None:
        amounts["ephemeral-storage"] = f"{pod.ephemeral_storage_gib}Gi"
    return {"requests": amounts, "limits": amounts}

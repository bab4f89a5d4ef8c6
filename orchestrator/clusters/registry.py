"""Opens a cluster by its address: the part before the colon names the kind.

A kind is a `Cluster` class, called with the address and the namespace. Other packages add kinds through the entry
point group `tandem.clusters`, under the name that begins their addresses.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from orchestrator.clusters.interface import Cluster
from orchestrator.clusters.job_cluster import JobCluster
from trainers.errors import InputError, one_line

GROUP = "tandem.clusters"
_RAY_JOBS = "orchestrator.clusters.ray_jobs:RayJobs"
_BUILT_IN = (
    EntryPoint("local", "orchestrator.clusters.local:Local", GROUP),
    EntryPoint("http", _RAY_JOBS, GROUP),
    EntryPoint("https", _RAY_JOBS, GROUP),
    EntryPoint("ray", _RAY_JOBS, GROUP),
    EntryPoint("kuberay", "orchestrator.clusters.kuberay.cluster:KubeRay", GROUP),
)


def open_cluster(address: str, *, namespace: str | None = None) -> Cluster:
    """The cluster of an address.

    Args:
        address: `local`, the address of a Ray cluster's dashboard, `kuberay`, `kuberay:CONTEXT`, or an address of
            an installed kind.
        namespace: of Kubernetes; the context's own when left out.

    Raises:
        InputError: the address is of no known kind, or is wrong for its kind.
    """
    kind = address.partition(":")[0]
    installed = entry_points(group=GROUP)
    entry = next((entry for entry in (*_BUILT_IN, *installed) if entry.name == kind), None)
    if entry is None:
        others = "".join(f", or an address that begins with {entry.name}" for entry in installed)
        raise InputError(
            f"--on {address!r}: give the address of a Ray cluster's dashboard, such as http://head:8265, or kuberay, "
            f"or kuberay: and a context of your kubeconfig{others}"
        )
    try:
        cluster = entry.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise InputError(f"--on {address!r}: {entry.value} cannot be imported: {one_line(error)}") from error
    if not (isinstance(cluster, type) and issubclass(cluster, Cluster)):
        raise InputError(
            f"--on {address!r}: {entry.value} is not a class of orchestrator.clusters.interface.Cluster"
        )
    return cluster(address, namespace)


def open_job_cluster(address: str, *, namespace: str | None = None) -> JobCluster:
    """The cluster of an address that accepts jobs.

    Raises:
        InputError: as `open_cluster`; or the cluster accepts no jobs.
    """
    cluster = open_cluster(address, namespace=namespace)
    if not isinstance(cluster, JobCluster):
        raise InputError(f"--on {address}: accepts no jobs; tandem run trains there and waits for the end")
    return cluster

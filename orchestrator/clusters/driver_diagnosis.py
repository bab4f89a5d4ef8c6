"""Why a driver failed, from what it printed. The same on every cluster."""

from __future__ import annotations

import re

from orchestrator.clusters.interface import Finding, shortened


def diagnose_log(log: str) -> Finding | None:
    """The known cause in a failed driver's output, or None."""
    errors = re.findall(r"^tandem: (.*)$", log, re.MULTILINE)
    error = errors[-1] if errors else ""
    if "GPUs" in error and "but there are 0" in error:
        return Finding(
            "gpu-not-visible",
            f"Ray sees no GPU there: {error}",
            "check that nvidia-smi works there; on Kubernetes set gpus of the group and install the GPU operator",
        )
    if seen := re.search(r"scale\.gpus_per_worker asks for a GPU, but [^;\n]*", log):
        without_cuda = "is built without CUDA" in seen[0]
        return Finding(
            "framework-without-cuda" if without_cuda else "gpu-not-visible",
            shortened(seen[0]),
            "use an image of the Dockerfile's target cuda, or install the framework's wheels with CUDA"
            if without_cuda
            else "check that nvidia-smi works there and that the driver suits the framework's CUDA",
        )
    if error.startswith("the deadline has passed"):
        return Finding(
            "deadline",
            "the job reached its deadline",
            "raise kubernetes.deadline_seconds and submit again: it resumes from its records",
        )
    if error.startswith("out of memory: the driver"):
        sentence, _, remedy = error.partition("; ")
        return Finding("driver-out-of-memory", sentence, remedy)
    if error.startswith("storage ") or "AccessDenied" in log or "NoSuchBucket" in log:
        return Finding(
            "storage",
            f"the cluster cannot use the storage: {error or shortened(log)}",
            "check storage and its credentials there; on Kubernetes name a Secret with them in kubernetes.secrets",
        )
    if error.startswith("data"):
        return Finding(
            "data", f"the cluster cannot read the data: {error}", "data.path is a path there, not here"
        )
    if "ModuleNotFoundError: No module named 'orchestrator'" in log:
        return Finding(
            "image-without-tandem",
            "tandem is not installed in the image",
            "use an image made from the project's Dockerfile as kubernetes.image",
        )
    if re.search(r"[Vv]ersion mismatch", log):
        return Finding(
            "version-mismatch",
            f"Ray's or Python's version differs between the nodes: {_first_line(log, '[Vv]ersion mismatch')}",
            "use one version on all nodes; on Kubernetes one image, with kubernetes.ray_version set to its Ray",
        )
    if re.search(r"exit code 137|exit code -9|\nKilled\n", log):
        return Finding(
            "driver-out-of-memory",
            "the driver on the head node was killed, most likely because it used too much memory",
            "give the head node more memory; on Kubernetes kubernetes.head.memory_gib",
        )
    if "another driver" in error:
        return Finding("held", error, "wait until the other driver has ended, or cancel its job")
    return None


def driver_failed(message: str, *, log: str, remedy: str) -> Finding:
    """A failure without a known cause: the failed runs, or the exit code and the last line of the log.

    Args:
        message: the cluster's, about the job.
        log: what the driver printed.
        remedy: a command that shows the whole log.
    """
    runs = re.findall(r"^(\S+ seed \d+ failed: .*); failed permanently$", log, re.MULTILINE)
    if runs:
        more = f" (and {len(runs) - 1} more)" if len(runs) > 1 else ""
        return Finding(
            "runs-failed",
            f"{runs[0]}{more}",
            "correct that and submit again; finished runs are kept",
        )
    code = re.search(r"exit code (-?\d+)", message)
    with_code = f" with exit code {code[1]}" if code else ""
    return Finding("driver-failed", f"the driver failed{with_code}: {_last_line(log)}", remedy)


def _first_line(log: str, pattern: str) -> str:
    return next((shortened(line) for line in log.splitlines() if re.search(pattern, line)), "")


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return shortened(lines[-1]) if lines else "it printed nothing"

"""A small stand-in for KubeRay's operator: it turns a RayJob into real Ray nodes, and reports as KubeRay does.

It watches the test API server's memory, refuses what KubeRay refuses, makes the RayCluster, its Secret, its pods and
its service, submits once every pod is ready (itself in HTTPMode, through a submitter's pods in K8sJobMode), polls
Ray's own job status, retries with a new cluster, replaces lost pods, submits again when a new head knows of no job,
keeps deadlines, suspends, tears down when a TTL or a deletion rule says so, cleans Redis, lets go of what is deleted.

A pod is a process on this machine: where a volume would be mounted, the entrypoint's path is replaced by a real
directory. Not modelled: SidecarMode and InteractiveMode, services' DNS, images (but for names that `missing_images`
and `bare_images` list), what the autoscaler does (its container only needs a token), probes, conditions beyond those
that tandem reads, gangs and queues.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
import secrets
import shutil
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.cluster.kube import redis
from tests.cluster.kube.api_server import ApiServer
from tests.cluster.kube.nodes import RayNodes
from tests.cluster.kube.store import Key, Manifest, now, reference, suffix, timestamp
from tests.cluster.kube.submitter import Submitter

_FINALIZER = "ray.io/rayjob-finalizer"
_REDIS_FINALIZER = "ray.io/gcs-ft-redis-cleanup-finalizer"
_CORDONED = "0/1 nodes are available: 1 node(s) were unschedulable."
_TICK_SECONDS = 0.3
_ENDED = {"SUCCEEDED": "Complete", "STOPPED": "Complete", "FAILED": "Failed"}


class Operator:
    """Runs in a thread from `start` until `stop`, which also ends every Ray node."""

    def __init__(self, server: ApiServer) -> None:
        self._server, self._store = server, server.store
        self._clusters: dict[str, RayNodes] = {}
        self._mounts: dict[str, str] = {}
        self._submitters: dict[str, Submitter] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.missing_images: set[str] = set()
        self.bare_images: set[str] = set()
        """Those without the commands that a submitter runs."""
        self.has_deletion_rules = True
        """The feature gate RayJobDeletionPolicy, on by default from KubeRay 1.6."""
        self.cordoned = False
        """Whether no node takes new pods."""
        self.redis_cleanups = 0
        """How many clusters' keys were deleted."""
        self.failures: list[BaseException] = []

    def start(self) -> Operator:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=60)
        for submitter in self._submitters.values():
            submitter.kill()
        for nodes in self._clusters.values():
            nodes.kill_all()
        for directory in self._mounts.values():
            shutil.rmtree(directory)

    def kill_pod(self, namespace: str, group: str) -> str:
        """End a pod of a group with its processes, as `kubectl delete pod` does; gives its name."""
        for pod in self._store.list("pods", namespace):
            labels = pod["metadata"]["labels"]
            if labels.get("ray.io/group") == group:
                name = str(pod["metadata"]["name"])
                # The object goes first, or its processes would be started again.
                self._store.delete(("pods", namespace, name))
                self._clusters[labels["ray.io/cluster"]].kill(name)
                return name
        raise AssertionError(f"no pod of group {group}")

    def kill_processes(self, namespace: str, *, group: str) -> None:
        """End a pod's processes and leave its object, as a crash does."""
        for pod in self._store.list("pods", namespace):
            labels = pod["metadata"]["labels"]
            if labels.get("ray.io/group") == group:
                self._clusters[labels["ray.io/cluster"]].kill(pod["metadata"]["name"])

    def uncordon(self) -> None:
        """Let nodes take pods again, those that wait first."""
        self.cordoned = False
        for pod in self._store.list("pods", None):
            if any(_CORDONED in condition.get("message", "") for condition in pod["status"]["conditions"]):
                key = ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
                self._store.update(key, lambda found: found["status"].update(conditions=[]))

    def start_cron_job(self, namespace: str, name: str) -> str:
        """Create the RayJob of a RayCronJob, as at one of its times; gives its name."""
        cron = self._store.get(("raycronjobs.ray.io", namespace, name))
        assert cron is not None
        job = f"{name}-{int(time.time()) // 60}"
        metadata = {
            "name": job,
            "namespace": namespace,
            "labels": {"ray.io/cronjob-name": name},
            "annotations": {"ray.io/cronjob-scheduled-timestamp": now()},
            "ownerReferences": [reference(cron)],
        }
        manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata}
        self._store.put(("rayjobs.ray.io", namespace, job), manifest | {"spec": cron["spec"]["jobTemplate"]})
        return job

    def _run(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            clusters = self._store.list("rayclusters.ray.io", None)
            ending = [found for found in clusters if "deletionTimestamp" in found["metadata"]]
            standing = [
                found
                for found in clusters
                if not found["metadata"].get("ownerReferences") and found not in ending
            ]
            work = [(self._clean_up, cluster) for cluster in ending]
            work += [(self._stand, cluster) for cluster in standing]
            work += [(self._reconcile, job) for job in self._store.list("rayjobs.ray.io", None)]
            for reconcile, found in work:
                try:
                    reconcile(found)
                except (requests.RequestException, OSError):
                    continue  # Ray is on its way up or down: at the next look
                except Exception as error:  # shown by the fixture at its end
                    self.failures.append(error)

    def _stand(self, cluster: Manifest) -> None:
        """Keep a RayCluster up that belongs to no job."""
        namespace, name = cluster["metadata"]["namespace"], cluster["metadata"]["name"]
        if name not in self._clusters:
            self._store.update(_cluster_key(cluster), lambda found: found.setdefault("status", {}))
            self._populate(cluster)
        elif self._are_ready(namespace, name, self._clusters[name]):
            self._server.proxies[namespace, f"{name}-head-svc"] = self._clusters[name].dashboard

    def _reconcile(self, job: Manifest) -> None:
        status = job.get("status") or {}
        deployment = status.get("jobDeploymentStatus", "")
        if "deletionTimestamp" in job["metadata"]:
            self._let_go(job)
        elif deployment in ("ValidationFailed",):
            return
        elif deployment in ("Complete", "Failed"):
            self._expire(job)
        elif job["spec"].get("suspend"):
            self._suspend(job)
        elif not deployment or deployment in ("Suspended", "Retrying"):
            self._begin(job)
        elif (reason := _past_deadline(job)) is not None:
            self._fail(job, *reason)
        elif deployment == "Initializing":
            self._initialize(job)
        elif deployment == "Running":
            self._follow(job)

    def _begin(self, job: Manifest) -> None:
        if (problem := _refusal(job, has_deletion_rules=self.has_deletion_rules)) is not None:
            message = f"The RayJob spec is invalid: {problem}"
            self._set(job, jobDeploymentStatus="ValidationFailed", reason="ValidationFailed", message=message)
            self._event("RayJob", job, "Warning", "InvalidRayJobSpec", f"{_name(job)}: {message}")
            return
        self._change(job, lambda found: found["metadata"].update(finalizers=[_FINALIZER]))
        name = job["metadata"]["name"]
        selector = job["spec"].get("clusterSelector")
        cluster = selector["ray.io/cluster"] if selector else f"{name}-{suffix()}"
        if not selector:
            self._make_cluster(job, cluster)
        status = job.get("status") or {}
        self._set(
            job,
            jobDeploymentStatus="Initializing",
            jobId=job["spec"].get("jobId") or f"{name}-{suffix()}",
            rayClusterName=cluster,
            startTime=now(),
            failed=status.get("failed", 0),
            succeeded=status.get("succeeded", 0),
        )

    def _make_cluster(self, job: Manifest, cluster: str) -> None:
        namespace, spec = job["metadata"]["namespace"], job["spec"]["rayClusterSpec"]
        labels = (job["metadata"].get("labels") or {}) | {
            "ray.io/originated-from-cr-name": _name(job),
            "ray.io/originated-from-crd": "RayJob",
        }
        finalizers = [_REDIS_FINALIZER] if "gcsFaultToleranceOptions" in spec else []
        made = self._store.put(
            ("rayclusters.ray.io", namespace, cluster),
            {
                "apiVersion": "ray.io/v1",
                "kind": "RayCluster",
                "metadata": {
                    "name": cluster,
                    "namespace": namespace,
                    "labels": labels,
                    "ownerReferences": [reference(job)],
                    "finalizers": finalizers,
                },
                "spec": spec,
                "status": {"conditions": [_condition("HeadPodReady", "False", "ContainersNotReady")]},
            },
        )
        self._populate(made)
        self._event("RayJob", job, "Normal", "CreatedRayCluster", f"Created RayCluster {namespace}/{cluster}")

    def _populate(self, made: Manifest) -> None:
        """Give a RayCluster its Secret, service and pods."""
        namespace, cluster, spec = made["metadata"]["namespace"], made["metadata"]["name"], made["spec"]
        token = secrets.token_hex(16)
        self._own(
            made,
            "Secret",
            ("secrets", namespace, _checked(cluster)),
            data={"auth_token": base64.b64encode(token.encode()).decode()},
        )
        self._own(made, "Service", ("services", namespace, f"{cluster}-head-svc"))
        self._create_missing_pods(made)
        environment = self._environment(namespace, described=spec["headGroupSpec"])
        if not any(_is_stuck(pod) for pod in self._pods(namespace, cluster)):
            self._clusters[cluster] = RayNodes(token, environment | self._outliving(made))

    def _create_missing_pods(self, cluster: Manifest) -> bool:
        """Create the pods that a RayCluster lacks; whether the API server admitted all."""
        namespace, spec = cluster["metadata"]["namespace"], cluster["spec"]
        groups = [("headgroup", spec["headGroupSpec"], 1)]
        groups += [
            (group["groupName"], group, max(group["replicas"], group["minReplicas"]) * group["numOfHosts"])
            for group in spec.get("workerGroupSpecs", [])
        ]
        admitted = True
        for group, described, count in groups:
            pods = self._pods(namespace, cluster["metadata"]["name"])
            for _ in range(count - sum(_group(pod) == group for pod in pods)):
                if (refusal := self._over_quota(namespace, described)) is None:
                    self._make_pod(cluster, group, described)
                    continue
                kind = "Head" if group == "headgroup" else "Worker"
                pod = f"{cluster['metadata']['name']}-{group}-worker-{suffix()}"
                message = (
                    f"Failed to create {kind.lower()} Pod for the cluster {namespace}/{cluster['metadata']['name']}: "
                    f'pods "{pod}" is forbidden: {refusal}'
                )
                self._event("RayCluster", cluster, "Warning", f"FailedToCreate{kind}Pod", message)
                admitted = False
        return admitted

    def _over_quota(self, namespace: str, described: Manifest) -> str | None:
        """Why a quota of the namespace refuses a pod; None if none does."""

        def requested(spec: Manifest, resource: str) -> float:
            return sum(
                _amount((container.get("resources") or {}).get("requests", {}).get(resource, 0))
                for container in spec["containers"]
            )

        pods = self._store.list("pods", namespace)
        for quota in self._store.list("resourcequotas", namespace):
            for limit, hard in quota["spec"]["hard"].items():
                resource = limit.removeprefix("requests.")
                if resource != "cpu":
                    continue
                asked = requested(described["template"]["spec"], resource)
                used = sum(requested(pod["spec"], resource) for pod in pods if "spec" in pod)
                if used + asked > _amount(hard):
                    return (
                        f"exceeded quota: {quota['metadata']['name']}, requested: {limit}={asked:g}, "
                        f"used: {limit}={used:g}, limited: {limit}={hard}"
                    )
        return None

    def _make_pod(self, cluster: Manifest, group: str, described: Manifest) -> None:
        namespace, cluster_name = cluster["metadata"]["namespace"], cluster["metadata"]["name"]
        is_head = group == "headgroup"
        middle = "head" if is_head else f"{group}-worker"
        name = f"{cluster_name}-{middle}-{suffix()}"
        container = described["template"]["spec"]["containers"][0]
        status: Manifest = {"phase": "Pending", "conditions": [], "containerStatuses": []}
        if is_head and cluster["spec"].get("enableInTreeAutoscaling"):
            status["containerStatuses"] = self._autoscaler(namespace, name, described["template"]["spec"])
        if self.cordoned:
            status["conditions"] = [_condition("PodScheduled", "False", "Unschedulable", _CORDONED)]
        elif message := self._unschedulable(container):
            status["conditions"] = [_condition("PodScheduled", "False", "Unschedulable", message)]
        elif container["image"] in self.missing_images:
            image = container["image"]
            waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            state = {
                "name": container["name"],
                "image": image,
                "state": {"waiting": waiting},
                "restartCount": 0,
            }
            status["containerStatuses"].append(state)
        pod = self._own(
            cluster,
            "Pod",
            ("pods", namespace, name),
            labels=(described["template"].get("metadata", {}).get("labels") or {})
            | {
                "ray.io/is-ray-node": "yes",
                "ray.io/cluster": cluster_name,
                "ray.io/node-type": "head" if is_head else "worker",
                "ray.io/group": group,
            },
            spec=described["template"]["spec"],
            status=status,
        )
        if image := next((s["image"] for s in status["containerStatuses"] if "waiting" in s["state"]), None):
            message = (
                f'Failed to pull image "{image}": failed to resolve reference "{image}": {image}: not found'
            )
            self._event("Pod", pod, "Warning", "Failed", message)
        if status["conditions"]:
            self._event("Pod", pod, "Warning", "FailedScheduling", status["conditions"][0]["message"])

    def _autoscaler(self, namespace: str, pod: str, spec: Manifest) -> list[Manifest]:
        """The status of the container beside the head, which ends at once without a token."""
        account = self._store.get(("serviceaccounts", namespace, spec.get("serviceAccountName", ""))) or {}
        own = spec.get("automountServiceAccountToken")
        has_token = account.get("automountServiceAccountToken", True) if own is None else own
        container = {"name": "autoscaler", "image": spec["containers"][0]["image"], "restartCount": 0}
        if has_token:
            return [container | {"ready": True, "state": {"running": {"startedAt": now()}}}]
        self._server.pod_logs[namespace, pod, "autoscaler"] = (
            "starting\nFileNotFoundError: [Errno 2] No such file or directory: "
            "'/var/run/secrets/kubernetes.io/serviceaccount/token'\n"
        )
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": now()}}
        return [container | {"ready": False, "state": ended}]

    def _unschedulable(self, container: Manifest) -> str | None:
        """Why no node has room, in the scheduler's words; None where one has, or where there are no nodes."""
        nodes = self._store.list("nodes", None)
        asked = (container.get("resources") or {}).get("limits") or {}
        lacking = [
            f"{len(nodes)} Insufficient {resource}"
            for resource in ("cpu", "nvidia.com/gpu")
            if resource in asked
            and all(
                _amount(node["status"]["allocatable"].get(resource, 0)) < _amount(asked[resource])
                for node in nodes
            )
        ]
        if not nodes or not lacking:
            return None
        return (
            f"0/{len(nodes)} nodes are available: {', '.join(lacking)}. no new claims to deallocate, preemption: "
            f"0/{len(nodes)} nodes are available: {len(nodes)} Preemption is not helpful for scheduling."
        )

    def _initialize(self, job: Manifest) -> None:
        namespace, cluster = job["metadata"]["namespace"], job["status"]["rayClusterName"]
        found = self._store.get(("rayclusters.ray.io", namespace, cluster))
        if (
            "clusterSelector" not in job["spec"]
            and found is not None
            and not self._create_missing_pods(found)
        ):
            return
        nodes = self._clusters.get(cluster)
        if nodes is None or not self._are_ready(namespace, cluster, nodes):
            return
        if job["spec"].get("submissionMode") == "HTTPMode":
            self._submit(job, nodes)
        else:
            self._send_submitter(job, nodes)
        where = f"{cluster}-head-svc.{namespace}.svc.cluster.local:8265"
        self._set(job, jobDeploymentStatus="Running", dashboardURL=where)
        self._server.proxies[namespace, f"{cluster}-head-svc"] = nodes.dashboard

    def _are_ready(self, namespace: str, cluster: str, nodes: RayNodes) -> bool:
        """Start what is not running; whether every pod is ready."""
        ready = True
        for pod in sorted(self._pods(namespace, cluster), key=lambda pod: _group(pod) != "headgroup"):
            name, is_head = pod["metadata"]["name"], _group(pod) == "headgroup"
            if _is_stuck(pod):
                return False
            if not self._has_files(namespace, pod):
                return False  # as a pod does whose ConfigMap is not there yet
            if not nodes.is_alive(name):
                start = nodes.start_head if is_head else nodes.start_worker
                start(name, cpus=_cpus(self._group_spec(namespace, cluster, _group(pod)), pod))
                self._mark(namespace, name, "Running", ready=False)
                ready = False
            if is_head and not self._answers(nodes):
                return False
            if not is_head and not self._is_registered(nodes, namespace, cluster):
                ready = False
            if ready:
                self._mark(namespace, name, "Running", ready=True)
        if ready:
            workers = sum(1 for pod in self._pods(namespace, cluster) if _group(pod) != "headgroup")
            self._store.update(
                ("rayclusters.ray.io", namespace, cluster),
                lambda found: found["status"].update(
                    state="ready",
                    readyWorkerReplicas=workers,
                    desiredWorkerReplicas=workers,
                    conditions=[_condition("HeadPodReady", "True", "HeadPodRunningAndReady")],
                ),
            )
        return ready

    def _is_registered(self, nodes: RayNodes, namespace: str, cluster: str) -> bool:
        answer = self._ray(nodes, "GET", "/api/v0/nodes?detail=0")
        alive = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
        return len(alive) >= len(self._pods(namespace, cluster))

    def _submission(self, job: Manifest) -> dict[str, Any]:
        """What Ray's Jobs API is asked for."""
        spec = job["spec"]
        entrypoint = str(spec["entrypoint"])
        for path, directory in self._mounts.items():
            entrypoint = entrypoint.replace(path, directory)
        asked: dict[str, Any] = {"entrypoint": entrypoint, "submission_id": job["status"]["jobId"]}
        if "runtimeEnvYAML" in spec:
            asked["runtime_env"] = yaml.safe_load(spec["runtimeEnvYAML"])
        return asked

    def _submit(self, job: Manifest, nodes: RayNodes) -> None:
        self._ray(nodes, "POST", "/api/jobs/", self._submission(job))

    def _send_submitter(self, job: Manifest, nodes: RayNodes) -> None:
        template = (
            job["spec"].get("submitterPodTemplate")
            or job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
        )
        starts = template["spec"]["containers"][0]["image"] not in self.bare_images
        self._submitters[_name(job)] = Submitter(
            self._store, job, nodes, submission=self._submission(job), starts=starts
        )
        about = f"Created Kubernetes Job {job['metadata']['namespace']}/{_name(job)}"
        self._event("RayJob", job, "Normal", "CreatedRayJobSubmitter", about)

    def _follow(self, job: Manifest) -> None:
        status, namespace = job["status"], job["metadata"]["namespace"]
        nodes, cluster = self._clusters[status["rayClusterName"]], status["rayClusterName"]
        submitter = self._submitters.get(_name(job))
        if submitter is not None:
            submitter.look()
            if submitter.state == "failed":
                told = "Reason: BackoffLimitExceeded. Message: Job has reached the specified backoff limit"
                self._fail(job, "SubmissionFailed", f"Job submission has failed. {told}")
                return
        owns = "clusterSelector" not in job["spec"]
        if owns and not any(_group(pod) == "headgroup" for pod in self._pods(namespace, cluster)):
            found = self._store.get(("rayclusters.ray.io", namespace, cluster))
            assert found is not None
            self._make_pod(found, "headgroup", found["spec"]["headGroupSpec"])
            lost = [_condition("HeadPodReady", "False", "HeadPodNotFound")]
            self._store.update(_cluster_key(found), lambda found: found["status"].update(conditions=lost))
        if owns and not self._are_ready(namespace, cluster, nodes):
            return
        try:
            told = self._ray(nodes, "GET", f"/api/jobs/{status['jobId']}")
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise
            if submitter is None:  # a new head knows of no job
                self._submit(job, nodes)
            elif submitter.state == "succeeded":
                self._fail(job, "AppFailed", "Submitter completed but Ray job not found in RayCluster.")
            return
        ray, message = told["status"], told["message"]
        if ray in _ENDED and (submitter is None or submitter.state == "succeeded"):
            if ray == "FAILED" and self._retry(job):
                return
            outcome = "succeeded" if ray == "SUCCEEDED" else "failed"
            count = status.get(outcome, 0) + (1 if ray != "STOPPED" else 0)
            reason = {"reason": "AppFailed"} if ray == "FAILED" else {}
            self._set(
                job,
                jobStatus=ray,
                message=message,
                jobDeploymentStatus=_ENDED[ray],
                endTime=now(),
                **{outcome: count},
                **reason,
            )
            return
        begun = {"startTime": timestamp(told["start_time"] / 1000)} if told["start_time"] else {}
        if ray != status.get("jobStatus") or begun != status.get("rayJobInfo", {}):
            self._set(job, jobStatus=ray, message=message, rayJobInfo=begun)

    def _retry(self, job: Manifest) -> bool:
        failed = (job["status"].get("failed") or 0) + 1
        if failed > job["spec"].get("backoffLimit", 0):
            return False
        self._tear_down(job)
        self._dismiss_submitter(job)
        self._change(
            job, lambda found: found.update(status={"jobDeploymentStatus": "Retrying", "failed": failed})
        )
        return True

    def _fail(self, job: Manifest, reason: str, message: str) -> None:
        failed = (job["status"].get("failed") or 0) + 1
        self._set(
            job, jobDeploymentStatus="Failed", reason=reason, message=message, failed=failed, endTime=now()
        )

    def _suspend(self, job: Manifest) -> None:
        if (job.get("status") or {}).get("jobDeploymentStatus") == "Suspended":
            return
        self._tear_down(job)
        self._dismiss_submitter(job)
        self._change(job, lambda found: found.update(status={"jobDeploymentStatus": "Suspended"}))

    def _expire(self, job: Manifest) -> None:
        """Delete what is due: with a TTL the cluster alone, with deletion rules what each says."""
        spec, status = job["spec"], job["status"]
        ended = time.time() - _seconds(status["endTime"])
        if spec.get("shutdownAfterJobFinishes"):
            if ended > spec.get("ttlSecondsAfterFinished", 0):
                self._tear_down(job)
            return
        for rule in (spec.get("deletionStrategy") or {}).get("deletionRules") or []:
            condition = rule["condition"]
            holds = condition.get("jobStatus") == status.get("jobStatus", "") or (
                condition.get("jobDeploymentStatus") == status["jobDeploymentStatus"]
            )
            if not holds or ended <= condition.get("ttlSeconds", 0):
                continue
            if rule["policy"] == "DeleteCluster":
                self._tear_down(job)
            elif rule["policy"] == "DeleteSelf":
                self._store.delete(_key(job))

    def _let_go(self, job: Manifest) -> None:
        self._tear_down(job)
        self._dismiss_submitter(job)
        self._change(job, lambda found: found["metadata"].update(finalizers=[]))

    def _tear_down(self, job: Manifest) -> None:
        cluster = (job.get("status") or {}).get("rayClusterName")
        if not cluster or "clusterSelector" in job["spec"]:
            return
        if nodes := self._clusters.pop(cluster, None):
            nodes.kill_all()
        self._store.delete(("rayclusters.ray.io", job["metadata"]["namespace"], cluster))

    def _clean_up(self, cluster: Manifest) -> None:
        """Delete a cluster's keys in Redis from a pod with the head's volumes, then let go of the cluster."""
        namespace, name = cluster["metadata"]["namespace"], cluster["metadata"]["name"]
        if nodes := self._clusters.pop(name, None):
            nodes.kill_all()
        cleanup = f"{name}-redis-cleanup"
        for pod in self._pods(namespace, name):
            if pod["metadata"]["name"] != cleanup:
                self._store.delete(("pods", namespace, pod["metadata"]["name"]))
        spec = cluster["spec"]["headGroupSpec"]["template"]["spec"]
        pod = self._store.get(("pods", namespace, cleanup)) or self._own(
            cluster,
            "Pod",
            ("pods", namespace, cleanup),
            labels={"ray.io/cluster": name, "ray.io/node-type": "redis-cleanup", "ray.io/group": "headgroup"},
            spec=spec,
            status={"phase": "Pending", "conditions": [], "containerStatuses": []},
        )
        if not self._has_files(namespace, pod):
            message = 'MountVolume.SetUp failed for volume "job" : configmap not found'
            self._event("Pod", pod, "Warning", "FailedMount", message)
            return
        environment = self._outliving(cluster)
        redis.delete_keys(
            environment["RAY_REDIS_ADDRESS"],
            environment.get("REDIS_PASSWORD"),
            containing=environment["RAY_external_storage_namespace"],
        )
        self.redis_cleanups += 1
        self._store.delete(("pods", namespace, cleanup))
        self._store.update(_cluster_key(cluster), lambda found: found["metadata"].update(finalizers=[]))

    def _dismiss_submitter(self, job: Manifest) -> None:
        if submitter := self._submitters.pop(_name(job), None):
            submitter.remove()

    def _answers(self, nodes: RayNodes) -> bool:
        try:
            return bool(self._ray(nodes, "GET", "/api/version"))
        except requests.RequestException:
            return False

    def _ray(self, nodes: RayNodes, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(
            method,
            f"{nodes.dashboard}{path}",
            json=body,
            headers={"Authorization": f"Bearer {nodes.token}"},
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()

    def _environment(self, namespace: str, *, described: Manifest) -> dict[str, str]:
        """What a container's Secrets put into its environment."""
        environment: dict[str, str] = {}
        for source in described["template"]["spec"]["containers"][0].get("envFrom", []):
            environment |= self._secret(namespace, source["secretRef"]["name"])
        return environment

    def _secret(self, namespace: str, name: str) -> dict[str, str]:
        """A Secret's keys with their values; none where there is no such Secret."""
        data = (self._store.get(("secrets", namespace, name)) or {}).get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _outliving(self, cluster: Manifest) -> dict[str, str]:
        """What makes Ray keep the head's state in Redis, by default under the cluster's uid."""
        namespace, options = cluster["metadata"]["namespace"], cluster["spec"].get("gcsFaultToleranceOptions")
        if options is None:
            return {}
        environment = {
            "RAY_REDIS_ADDRESS": options["redisAddress"],
            "RAY_external_storage_namespace": options.get(
                "externalStorageNamespace", cluster["metadata"]["uid"]
            ),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
        if "redisPassword" in options:
            reference = options["redisPassword"]["valueFrom"]["secretKeyRef"]
            environment["REDIS_PASSWORD"] = self._secret(namespace, reference["name"])[reference["key"]]
        return environment

    def _has_files(self, namespace: str, pod: Manifest) -> bool:
        """Put a pod's ConfigMaps into real directories; whether they are all there."""
        spec = pod["spec"]
        for volume in spec.get("volumes", []):
            if "configMap" not in volume:
                continue
            found = self._store.get(("configmaps", namespace, volume["configMap"]["name"]))
            if found is None:
                return False
            mounts = [m for c in spec["containers"] for m in c["volumeMounts"] if m["name"] == volume["name"]]
            if mounts[0]["mountPath"] in self._mounts:
                directory = Path(self._mounts[mounts[0]["mountPath"]])
            else:
                directory = Path(tempfile.mkdtemp(prefix="mount"))
                self._mounts[mounts[0]["mountPath"]] = str(directory)
            for name, text in found["data"].items():
                (directory / name).write_text(text)
        return True

    def _pods(self, namespace: str, cluster: str) -> list[Manifest]:
        pods = self._store.list("pods", namespace)
        return [pod for pod in pods if pod["metadata"]["labels"].get("ray.io/cluster") == cluster]

    def _group_spec(self, namespace: str, cluster: str, group: str) -> Manifest:
        found = self._store.get(("rayclusters.ray.io", namespace, cluster))
        assert found is not None
        spec = found["spec"]
        if group == "headgroup":
            return dict(spec["headGroupSpec"])
        return next(entry for entry in spec["workerGroupSpecs"] if entry["groupName"] == group)

    def _mark(self, namespace: str, pod: str, phase: str, *, ready: bool) -> None:
        condition = _condition("Ready", "True" if ready else "False", "" if ready else "ContainersNotReady")
        found = self._store.get(("pods", namespace, pod))
        before = (found or {}).get("status", {}).get("conditions") or [{}]
        if found is not None and before[0].get("status") != condition["status"]:
            self._store.update(
                ("pods", namespace, pod),
                lambda found: found["status"].update(phase=phase, conditions=[condition]),
            )

    def _own(self, owner: Manifest, kind: str, key: Key, *, labels: Any = None, **fields: Any) -> Manifest:
        metadata = {
            "name": key[2],
            "namespace": key[1],
            "labels": labels or {},
            "ownerReferences": [reference(owner)],
        }
        return self._store.put(key, {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields})

    def _event(self, kind: str, about: Manifest, type_: str, reason: str, message: str) -> None:
        namespace, name = about["metadata"]["namespace"], about["metadata"]["name"]
        key = ("events", namespace, f"{name}.{secrets.token_hex(8)}")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": key[2], "namespace": namespace},
            "involvedObject": {"kind": kind, "namespace": namespace, "name": name},
            "type": type_,
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        self._store.put(key, event)

    def _set(self, job: Manifest, **status: Any) -> None:
        self._change(job, lambda found: found.setdefault("status", {}).update(status))

    def _change(self, job: Manifest, change: Any) -> None:
        with contextlib.suppress(KeyError):
            self._store.update(_key(job), change)


def _cluster_key(cluster: Manifest) -> Key:
    return "rayclusters.ray.io", cluster["metadata"]["namespace"], cluster["metadata"]["name"]


def _key(job: Manifest) -> Key:
    return "rayjobs.ray.io", job["metadata"]["namespace"], job["metadata"]["name"]


def _name(job: Manifest) -> str:
    return str(job["metadata"]["name"])


def _checked(name: str) -> str:
    name = name[-50:]
    return name if name[0].isalpha() else f"r{name[1:]}"


def _group(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"]["ray.io/group"])


def _is_stuck(pod: Manifest) -> bool:
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return any(
        state.get("waiting", {}).get("reason") == "ImagePullBackOff"
        or state.get("terminated", {}).get("exitCode", 0) != 0
        for state in states
    ) or any(
        condition["type"] == "PodScheduled" and condition["status"] == "False"
        for condition in pod["status"].get("conditions", [])
    )


def _cpus(described: Manifest, pod: Manifest) -> str:
    """As the operator's `ray start`: the parameter where there is one, else the container's limit."""
    limits = (pod["spec"]["containers"][0].get("resources") or {}).get("limits") or {}
    given = (described.get("rayStartParams") or {}).get("num-cpus")
    return str(given or math.ceil(_amount(limits.get("cpu", "1"))))


def _amount(quantity: Any) -> float:
    """CPUs or devices as a number; `500m` is half of one."""
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _condition(type_: str, status: str, reason: str, message: str = "") -> Manifest:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _past_deadline(job: Manifest) -> tuple[str, str] | None:
    spec, status = job["spec"], job["status"]
    elapsed = time.time() - _seconds(status["startTime"])
    started = datetime.fromisoformat(status["startTime"]).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    early = spec.get("preRunningDeadlineSeconds")
    if status["jobDeploymentStatus"] == "Initializing" and early and elapsed > early:
        return "PreRunningDeadlineExceeded", _passed("preRunningDeadlineSeconds", early, started)
    late = spec.get("activeDeadlineSeconds")
    if late and elapsed > late:
        return "DeadlineExceeded", _passed("activeDeadlineSeconds", late, started)
    return None


def _passed(field: str, seconds: int, started: str) -> str:
    name = field[0].upper() + field[1:]
    return f"The RayJob has passed the {field}. StartTime: {started}. {name}: {seconds}"


def _refusal(job: Manifest, *, has_deletion_rules: bool) -> str | None:
    """What KubeRay's own validation refuses, of that which tandem might send."""
    spec, name = job["spec"], _name(job)
    if "deletionStrategy" in spec:
        if not has_deletion_rules:
            return "RayJobDeletionPolicy feature gate must be enabled to use DeletionStrategy"
        if spec.get("shutdownAfterJobFinishes"):
            return "shutdownAfterJobFinishes and deletionStrategy.deletionRules are mutually exclusive"
        rules = spec["deletionStrategy"]["deletionRules"]
        if "clusterSelector" in spec and any(rule["policy"] != "DeleteSelf" for rule in rules):
            return "DeleteCluster and DeleteWorkers are incompatible with ClusterSelector"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 47:
        return f"RayJob name should be no more than 47 characters and a valid DNS-1035 label: {name}"
    if "rayClusterSpec" not in spec and "clusterSelector" not in spec:
        return "one of RayClusterSpec or ClusterSelector must be set"
    if "clusterSelector" in spec and spec.get("backoffLimit", 0) > 0:
        return "BackoffLimit is incompatible with ClusterSelector"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        return "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        return "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished"
    cluster = spec.get("rayClusterSpec") or {}
    if (cluster.get("authOptions") or {}).get("mode") == "token" and not cluster.get("rayVersion"):
        return "authOptions.mode is 'token' but RayVersion was not specified"
    for group in cluster.get("workerGroupSpecs", []):
        if group["minReplicas"] > group["maxReplicas"]:
            return f"worker group {group['groupName']} has minReplicas greater than maxReplicas"
    return None

"""The test API server and the stand-in operator, held to what a real cluster answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.cluster.conftest import KubeRayHere
from tests.cluster.kube.api_server import ApiServer
from tests.cluster.test_kuberay import until

pytestmark = pytest.mark.serial

TRANSCRIPTS = Path(__file__).with_name("transcripts")


def recorded() -> list[dict[str, Any]]:
    return list(json.loads((TRANSCRIPTS / "api.json").read_text()))


class Client:
    """Sends what was sent, as the administrator or as somebody else."""

    def __init__(self, server: ApiServer) -> None:
        config = yaml.safe_load(server.kubeconfig())
        self._base = config["clusters"][0]["cluster"]["server"]
        self._token = config["users"][0]["user"]["token"]

    def ask(
        self, request: str, *, params: Any = None, body: Any = None, token: str | None = None
    ) -> requests.Response:
        method, path = request.split(" ")[:2]
        return requests.request(
            method,
            f"{self._base}{path}",
            params=params,
            json=body,
            headers={"Authorization": f"Bearer {token or self._token}"},
            timeout=10,
            verify=False,
        )


ASSIGNED = re.compile(r'("(?:uid|resourceVersion|creationTimestamp|deletionTimestamp)": )"[^"]*"')


def comparable(body: Any) -> Any:
    """Without what each cluster assigns anew."""
    return json.loads(ASSIGNED.sub(r'\1"*"', json.dumps(body, sort_keys=True)))


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_single_requests_are_answered_as_a_real_cluster_answers(server: ApiServer) -> None:
    client, compared = Client(server), 0
    for entry in recorded():
        request = entry.get("request", "")
        if (
            entry.get("body") is None
            or "status" not in entry
            or (entry.get("params", {}) and "watch" in entry["params"])
        ):
            continue
        if request.startswith("POST selfsubjectaccessreviews"):
            review = {name: value for name, value in entry["body"].items() if name != "status"}
            path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            answer = client.ask(path, body=review, token=_token_of_nobody(server))
        elif " as " in request:
            token = _token_of_nobody(server)
            answer = client.ask(request, body={"metadata": {"name": "x"}}, token=token)
        elif request.startswith("GET with a wrong token"):
            answer = client.ask("GET /apis/ray.io/v1/namespaces/default/rayjobs", token="wrong")
        elif "limit" in (entry.get("params") or {}) or "labelSelector" in (entry.get("params") or {}):
            continue  # the state that these lists were read from is not in the transcript; see below
        elif request == "GET /apis/ray.io/v1" or request == "GET /version":
            continue  # storage hashes and build dates; see below
        else:
            answer = client.ask(request, params=entry["params"], body=entry["sent"])
        assert answer.status_code == entry["status"], (request, answer.text)
        if not request.startswith("DELETE") and not request.startswith("GET /apis/none"):
            wanted = comparable(entry["body"])
            if answer.status_code == 201 and "finalizers" in str(wanted):
                continue
            assert comparable(answer.json()) == wanted, request
        if "Warning" in entry.get("headers", {}):
            assert answer.headers["Warning"] == entry["headers"]["Warning"]
        compared += 1
    assert compared >= 12


BUILD = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler")
"""Fields of `/version` that differ between builds."""


def without_varying(answer: Any) -> Any:
    """Without what each cluster assigns, and without the data of its build."""
    text = re.sub(r"too old resource version: 1 \(\d+\)", "too old resource version", json.dumps(answer))
    plain = comparable(json.loads(text))
    return plain if isinstance(plain, str) else {key: plain[key] for key in plain if key not in BUILD}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_sequence_of_requests_is_answered_as_a_real_api_server_answers(server: ApiServer) -> None:
    client, different = Client(server), []
    entries = json.loads((TRANSCRIPTS / "requests.json").read_text())
    for entry in entries:
        sent = entry["request"]
        if entry["case"] == "configmap too large":
            sent["body"]["data"]["a"] = "x" * (1 << 20)
        answer = client.ask(f"{sent['method']} {sent['path']}", params=sent["query"], body=sent["body"])
        is_json = answer.headers["Content-Type"] == "application/json"
        body = json.loads(answer.text.splitlines()[0]) if is_json else answer.text
        if entry["case"] == "configmap too large":
            del body["data"]  # cut from the transcript
        if answer.status_code != entry["status"] or without_varying(body) != without_varying(entry["answer"]):
            different.append(entry["case"])
    assert len(entries) == 37 and different == []


def _token_of_nobody(server: ApiServer) -> str:
    server.tokens["nobody"] = "system:serviceaccount:default:nobody"
    return "nobody"


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_lists_and_watches_behave_as_recorded(server: ApiServer) -> None:
    client = Client(server)
    path = "/apis/ray.io/v1/namespaces/default/rayjobs"
    for name, app in [("a1", "x"), ("p0", "y"), ("p1", "y"), ("p2", "y")]:
        spec = {"entrypoint": "python", "clusterSelector": {"ray.io/cluster": "c"}}
        body = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": spec,
        }
        assert client.ask(f"POST {path}", body=body).status_code == 201
    pages = [entry for entry in recorded() if "limit" in (entry.get("params") or {})]
    token = ""
    for entry in pages[:2]:
        params = {"limit": 2} | ({"continue": token} if token else {})
        answer = client.ask(f"GET {path}", params=params).json()
        names = [item["metadata"]["name"] for item in answer["items"]]
        assert names == [item["metadata"]["name"] for item in entry["body"]["items"]]
        token = answer["metadata"]["continue"]
        assert answer["metadata"].get("remainingItemCount") == entry["body"]["metadata"].get(
            "remainingItemCount"
        )
        assert bool(token) == bool(entry["body"]["metadata"]["continue"])
    for entry in [entry for entry in recorded() if "labelSelector" in (entry.get("params") or {})] + pages[
        2:
    ]:
        answer = client.ask(f"GET {path}", params=entry["params"])
        assert answer.status_code == entry["status"]
        if entry["status"] == 200:
            names = [item["metadata"]["name"] for item in answer.json()["items"]]
            assert names == [item["metadata"]["name"] for item in entry["body"]["items"]]
        else:
            assert answer.json() == entry["body"]
    server.store.compact()
    (expired,) = [entry["watch_old_rv"] for entry in recorded() if "watch_old_rv" in entry]
    answer = client.ask(f"GET {path}", params=expired["params"])
    event = json.loads(answer.text.splitlines()[0])
    assert event["type"] == "ERROR"
    for field in ("kind", "status", "reason", "code"):
        assert event["object"][field] == expired["body"]["object"][field]
    assert event["object"]["message"].startswith("too old resource version: 1 (")
    (discovery,) = [entry for entry in recorded() if entry.get("request") == "GET /apis/ray.io/v1"]
    served = client.ask("GET /apis/ray.io/v1").json()
    names = {resource["name"]: resource["kind"] for resource in served["resources"]}
    assert names == {resource["name"]: resource["kind"] for resource in discovery["body"]["resources"]}


State = tuple[str | None, str | None]
"""The deployment status and the job status of a RayJob."""


def recorded_states(transcript: Path) -> list[State]:
    """What a RayJob went through on a real cluster."""
    first, *rest = (json.loads(line) for line in transcript.read_text().splitlines())
    name = first["submitted"]["metadata"]["name"]
    jobs = [entry["object"] for entry in rest if entry.get("kind") == "RayJob"]
    return seen_between_looks(job for job in jobs if job["metadata"]["name"] == name)


def seen_between_looks(jobs: Iterable[dict[str, Any]]) -> list[State]:
    """Each state once, without those so short that a look may miss them."""
    statuses = [job.get("status") or {} for job in jobs]
    seen = [(status.get("jobDeploymentStatus"), status.get("jobStatus")) for status in statuses]
    seen = [state for state in seen if state[1] not in ("PENDING", "Failure")]
    return [state for place, state in enumerate(seen) if place == 0 or state != seen[place - 1]]


ENTRYPOINTS = {
    "app-fails": "python -c 'raise SystemExit(3)'",
    "deadline": "sleep 60",
    "head-killed": "sleep 60",
    "oom": "python -c 'raise SystemExit(137)'",
    "retries": "python -c 'raise ValueError(1)'",
    "suspended": "sleep 60",
}
"""What stands for the recorded entrypoints, whose paths and memory limits are those of an image."""
ENDS = ("Complete", "Failed", "Suspended", "ValidationFailed")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize(
    "case",
    [
        "invalid",
        "unschedulable",
        "image-pull",
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in (
                "app-fails",
                "deadline",
                "head-killed",
                "ok-http",
                "ok-k8sjob-token",
                "oom",
                "retries",
                "submitter-fails",
                "suspended",
            )
        ),
    ],
)
def test_the_operator_goes_through_the_same_states(case: str, kuberay: KubeRayHere) -> None:
    file = TRANSCRIPTS / f"{case}.jsonl"
    submitted = json.loads(file.read_text().splitlines()[0])["submitted"]
    submitted["metadata"] |= {"namespace": "default", "name": case}
    submitted["spec"]["entrypoint"] = ENTRYPOINTS.get(case, "python -c 'print(1)'")
    submitted["spec"].pop("jobId", None)
    for name in ("preRunningDeadlineSeconds", "activeDeadlineSeconds"):
        if name in submitted["spec"] and case != "deadline":
            submitted["spec"][name] = 5
    server, operator = kuberay.server, kuberay.operator
    operator.missing_images.add("docker.io/example/missing:1")
    if case == "submitter-fails":
        operator.bare_images.add("docker.io/rayproject/ray:2.60.0")
    if case == "unschedulable":
        node = {"metadata": {"name": "node1"}, "status": {"allocatable": {"cpu": "2", "memory": "8Gi"}}}
        server.store.put(("nodes", "", "node1"), node)
    before = server.store.version
    path = "POST /apis/ray.io/v1/namespaces/default/rayjobs"
    assert Client(server).ask(path, body=submitted).status_code == 201

    def passed() -> list[State]:
        changes = server.store.changes_after(before, "rayjobs.ray.io", "default")
        return seen_between_looks(change.object for change in changes)

    if case in ("head-killed", "suspended"):
        until(lambda: passed()[-1] == ("Running", "RUNNING"))
        if case == "suspended":
            key = ("rayjobs.ray.io", "default", case)
            server.store.update(key, lambda found: found["spec"].update(suspend=True))
        else:
            begun = _started(server, case)
            operator.kill_pod("default", "headgroup")
            until(lambda: _started(server, case) != begun and passed()[-1] == ("Running", "RUNNING"))
    if case != "head-killed":
        until(lambda: operator.failures or passed()[-1][0] in ENDS)
    # What is left may be missed on either side too; the order and the end may not differ.
    told, ours = recorded_states(file), passed()
    assert ours[-1] == told[-1]
    shared = [state for state in ours if state in told]
    assert shared == [state for state in told if state in ours]
    assert {state[0] for state in ours} - {None} <= {state[0] for state in told} | {"Retrying"}


def _started(server: ApiServer, job: str) -> str | None:
    """When Ray says that its job began."""
    found = server.store.get(("rayjobs.ray.io", "default", job))
    assert found is not None
    return (found["status"].get("rayJobInfo") or {}).get("startTime")

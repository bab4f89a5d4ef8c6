"""What `tandem render` prints: valid for the operator's own schemas, and safe."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
import yaml
from hypothesis import strategies as st

from orchestrator.clusters.job_bundle import JobBundle
from orchestrator.clusters.kuberay.manifests import render
from orchestrator.experiment import reader
from orchestrator.planning.job import FILES_VARIABLE, JOB_FILE, JobSpec
from tests.cluster.kube import crds, schemas
from tests.conftest import tandem
from trainers.errors import InputError


def experiment(**kubernetes: Any) -> dict[str, Any]:
    return {
        "name": "there",
        "arms": {"keras": {"framework": "keras"}},
        "storage": "s3://bucket/results",
        "kubernetes": {"image": "registry.example/tandem:1"} | kubernetes,
    }


def rendered(document: dict[str, Any], module_path: Path = Path()) -> list[dict[str, Any]]:
    spec = JobSpec(experiment=reader.load_mapping(document), searches=False, command=[])
    return render(JobBundle(spec=spec, module_path=module_path))


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema as the API server applies it with strict field validation."""
    schema = dict(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        schema["properties"] = {name: strict(below) for name, below in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    return schema


@functools.cache
def ray_job() -> jsonschema.Draft202012Validator:
    """KubeRay's schema of a RayJob."""
    crd = yaml.load((crds.directory() / "ray.io_rayjobs.yaml").read_text(), Loader=yaml.CSafeLoader)
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


LABEL = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
POD = {
    "ephemeral_storage_gib": st.integers(1, 500),
    "scratch_gib": st.integers(1, 500),
    "affinity": st.just({"nodeAffinity": {}}),
    "cpus": st.integers(1, 256),
    "memory_gib": st.integers(1, 2048),
    "node_selector": st.dictionaries(LABEL, LABEL, max_size=2),
    "tolerations": st.lists(
        st.fixed_dictionaries(
            {"key": LABEL, "operator": st.sampled_from(["Exists", "Equal"])},
            optional={"effect": st.sampled_from(["NoSchedule", "NoExecute"]), "value": LABEL},
        ),
        max_size=2,
    ),
}


@st.composite
def groups(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(LABEL.filter(lambda name: name != "head"), min_size=1, max_size=3, unique=True))
    made = []
    for name in names:
        low = draw(st.integers(0, 5))
        own = draw(
            st.fixed_dictionaries({}, optional=POD | {"gpus": st.integers(0, 8), "hosts": st.integers(1, 4)})
        )
        made.append(own | {"name": name, "min": low, "max": draw(st.integers(max(low, 1), 9))})
    return made


KUBERNETES = st.fixed_dictionaries(
    {"image": st.just("registry.example/tandem:1")},
    optional={
        "namespace": LABEL,
        "head": st.fixed_dictionaries({}, optional=POD),
        "workers": groups(),
        "idle_seconds": st.integers(1, 9999),
        "start_seconds": st.integers(1, 9999),
        "deadline_seconds": st.integers(1, 9999),
        "keep_seconds": st.integers(0, 9999),
        "retries": st.integers(0, 9),
        "priority": LABEL,
        "suspended": st.booleans(),
        "redis": st.fixed_dictionaries({"address": st.just("redis:6379")}, optional={"secret": LABEL}),
        "secrets": st.lists(LABEL, max_size=2),
        "pull_secrets": st.lists(LABEL, max_size=2),
        "service_account": LABEL,
        "labels": st.dictionaries(LABEL, LABEL, max_size=2),
        "annotations": st.dictionaries(LABEL, LABEL, max_size=2),
        "priority_class": LABEL,
        "runtime_class": LABEL,
        "image_pull_policy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
        "claims": st.lists(st.fixed_dictionaries({"claim": LABEL, "path": st.just("/data")}), max_size=1),
    },
)


NAME = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
)
QUEUE = st.none() | st.tuples(st.sampled_from(["kueue", "volcano", "yunikorn"]), LABEL)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(kubernetes=KUBERNETES, name=NAME, queue=QUEUE)
def test_whatever_the_file_says_the_objects_are_valid(
    kubernetes: dict[str, Any], name: str, queue: tuple[str, str] | None
) -> None:
    job = check_rendered(kubernetes, name, queue)
    ray_job().validate(job)


@pytest.mark.slow
@hypothesis.settings(max_examples=5000, deadline=None)
@hypothesis.given(kubernetes=KUBERNETES, name=NAME, queue=QUEUE)
def test_whatever_thousands_of_files_say_the_objects_are_valid(
    kubernetes: dict[str, Any], name: str, queue: tuple[str, str] | None
) -> None:
    job = check_rendered(kubernetes, name, queue)
    schema = schemas.version_of(schemas.crd(crds.directory() / "ray.io_rayjobs.yaml"), "v1")["schema"][
        "openAPIV3Schema"
    ]
    assert list(schemas.unknown_fields(job, schema)) == []
    assert list(schemas.problems({key: job[key] for key in ("apiVersion", "kind", "spec")}, schema)) == []


def check_rendered(kubernetes: dict[str, Any], name: str, queue: tuple[str, str] | None) -> dict[str, Any]:
    """Hold a rendered job to what the operator refuses and what tandem promises; gives it."""
    if queue is not None:
        fixed = [group | {"min": group["max"]} for group in kubernetes.get("workers", [{"min": 1, "max": 1}])]
        kubernetes = kubernetes | {"scheduler": queue[0], "queue": queue[1], "workers": fixed}
    *config_maps, job = rendered(experiment() | {"name": name, "kubernetes": kubernetes})
    spec = job["spec"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,42}[a-z0-9])?", job["metadata"]["name"])
    assert bool(config_maps) == ("redis" not in kubernetes)
    for config_map in config_maps:
        assert config_map["metadata"]["name"] == job["metadata"]["name"]
    check_ending(spec, kubernetes.get("keep_seconds", 600))
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert len({group["groupName"] for group in groups}) == len(groups)
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for template in [spec["rayClusterSpec"]["headGroupSpec"]["template"], *(g["template"] for g in groups)]:
        pod = template["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert all(set(entry) == {"secretRef"} for entry in container["envFrom"])
    if queue is not None:
        assert queue[1] in job["metadata"]["labels"].values()
    return dict(job)


def check_ending(spec: dict[str, Any], keep_seconds: int) -> None:
    """No GPU is left running: the cluster goes at once, in one of two ways that exclude each other."""
    if "deletionStrategy" not in spec:
        assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] == 0
        return
    assert "shutdownAfterJobFinishes" not in spec and "ttlSecondsAfterFinished" not in spec
    assert not spec.get("suspend"), "KubeRay refuses both together"
    delays = {"DeleteCluster": 0, "DeleteSelf": max(30, keep_seconds)}
    ends = ({"jobStatus": "SUCCEEDED"}, {"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"})
    rules = spec["deletionStrategy"]["deletionRules"]
    for policy, seconds in delays.items():
        for end in ends:
            assert {"policy": policy, "condition": end | {"ttlSeconds": seconds}} in rules
    assert len(rules) == 6


def test_the_operator_deletes_what_a_job_leaves() -> None:
    _, job = rendered(experiment(keep_seconds=30))
    check_ending(job["spec"], 30)
    for change in ({"suspended": True}, {"queue": "q"}):
        _, job = rendered(experiment(**change))
        assert job["spec"]["ttlSecondsAfterFinished"] == 0, "a suspended job needs shutdownAfterJobFinishes"
        assert job["metadata"]["annotations"]["tandem/keep-seconds"] == "600"
    (job,) = rendered(experiment(cluster="team"))
    policies = {rule["policy"] for rule in job["spec"]["deletionStrategy"]["deletionRules"]}
    assert policies == {"DeleteSelf"}, "the standing cluster stays"


def test_a_cluster_that_autoscales_in_kueues_queue_is_elastic() -> None:
    for workers, elastic in (([{"min": 0, "max": 2}], True), ([{"min": 2, "max": 2}], False)):
        _, job = rendered(experiment(queue="q", workers=workers))
        assert ("kueue.x-k8s.io/elastic-job" in job["metadata"]["annotations"]) == elastic


def test_start_seconds_are_for_all_attempts_together() -> None:
    _, job = rendered(experiment(start_seconds=900, retries=2))
    assert job["spec"]["preRunningDeadlineSeconds"] == 300 and job["spec"]["backoffLimit"] == 2


def test_what_kuberay_1_7_adds_is_rendered() -> None:
    _, job = rendered(
        experiment(rocksdb={"size_gib": 2, "storage_class": "fast"}, history_server="history:1")
    )
    ray_job().validate(job)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
    assert cluster["gcsFaultToleranceOptions"]["storage"]["storageClassName"] == "fast"
    assert cluster["historyServerOptions"]["collectorOptions"]["image"] == "history:1"
    with pytest.raises(InputError, match="redis keeps Ray's state already"):
        rendered(experiment(rocksdb={}, redis={"address": "redis:6379"}))


def test_a_cleanup_pod_of_redis_mounts_nothing_that_goes_with_the_job() -> None:
    (job,) = rendered(experiment(redis={"address": "redis:6379"}))
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert not any("configMap" in volume for volume in head["volumes"])
    files = json.loads(yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"][FILES_VARIABLE])
    assert JOB_FILE in files


def test_a_standing_cluster_is_given_the_files_with_the_job(tmp_path: Path) -> None:
    (job,) = rendered(experiment(cluster="team"))
    ray_job().validate(job)
    spec = job["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "team"} and "rayClusterSpec" not in spec
    assert spec["backoffLimit"] == 0, "KubeRay refuses retries on a standing cluster"
    files = json.loads(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"][FILES_VARIABLE])
    assert json.loads(files[JOB_FILE])["experiment"]["name"] == "there"
    (tmp_path / "models.py").write_text("#" * (100 << 10))
    document = experiment(cluster="team")
    document["arms"]["keras"]["model"] = "models:build"
    with pytest.raises(InputError, match="more than a job's environment can hold"):
        rendered(document, tmp_path)


def test_the_schema_refuses_what_the_operator_does_not_know() -> None:
    _, job = rendered(experiment())
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        ray_job().validate(wrong)


def test_only_a_cluster_that_autoscales_talks_to_kubernetes() -> None:
    _, fixed = rendered(experiment(workers=[{"min": 2, "max": 2}]))
    cluster = fixed["spec"]["rayClusterSpec"]
    assert not cluster["enableInTreeAutoscaling"] and "autoscalerOptions" not in cluster
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is False
    _, growing = rendered(experiment(workers=[{"min": 0, "max": 2}]))
    cluster = growing["spec"]["rayClusterSpec"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert head["automountServiceAccountToken"] is True, "whatever the account's own field says"
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_users_modules_go_along(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("def build(image_shape, num_classes): ...")
    (tmp_path / "secret.env").write_text("TOKEN=1")
    document = experiment()
    document["arms"]["keras"]["model"] = "models:build"
    config_map, _ = rendered(document, tmp_path)
    assert set(config_map["data"]) == {"models.py", JOB_FILE}
    (tmp_path / "models.py").write_text("#" * (1 << 20))
    with pytest.raises(InputError, match="more than a ConfigMap can hold"):
        rendered(document, tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"storage": "results"}, "would be deleted with them"),
        ({"kubernetes": None}, "has no kubernetes: block"),
        ({"kubernetes": {}}, "kubernetes.image: missing"),
        ({"kubernetes": {"image": "a", "workers": [{"min": 3, "max": 2}]}}, "min 3 exceeds max 2"),
        ({"kubernetes": {"image": "a", "workers": [{"name": "head"}]}}, "cannot be called head"),
        ({"kubernetes": {"image": "a", "workers": [{}, {}]}}, "share a name"),
        (
            {"kubernetes": {"image": "a", "queue": "q", "workers": [{"name": f"w{n}"} for n in range(18)]}},
            "at most 17 worker groups",
        ),
        ({"kubernetes": {"image": "a", "labels": {"ray.io/cluster": "x"}}}, "set by tandem or KubeRay"),
        ({"kubernetes": {"image": "a", "namespace": "No"}}, "lower-case letters"),
        ({"kubernetes": {"image": "a", "cluster": "c", "queue": "q"}}, "is for a cluster of the job's own"),
    ],
)
def test_what_cannot_run_gets_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        rendered(experiment() | change)
    assert sentence in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_render_prints_what_would_be_sent(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment(claims=[{"claim": "data", "path": "/data"}])))
    done = tandem("render", file, "--set", "storage=/data/results")
    assert done.returncode == 0, done.stderr
    config_map, job = yaml.safe_load_all(done.stdout)
    assert (config_map["kind"], job["kind"]) == ("ConfigMap", "RayJob")

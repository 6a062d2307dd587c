"""The manifest for GKE: hosts and chips of slices, what Kubernetes accepts, what restarts when."""

import math
import re
import subprocess
import sys

import pytest
import yaml
from jsonschema import ValidationError

from launch.gke import slices
from launch.gke.manifest import Job
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from tests.launch.jobset import check_jobset
from tests.launch.scripts import REPOSITORY, assert_user_error

FLAGS = {
    "name": "stunet",
    "image": "us-docker.pkg.dev/p/r/lumiere_jax:1",
    "accelerator": "v5p",
    "topology": "4x4x4",
    "config": "configs/stunet.py:full",
    "workdir": "gs://bucket/stunet",
}


def run(*arguments: str, **changes: str | None) -> subprocess.CompletedProcess:
    flags = [f"--{name}={value}" for name, value in (FLAGS | changes).items() if value is not None]
    command = [sys.executable, "-m", "launch.gke.render", *flags, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def manifest(tpu_slice: slices.Slice, **changes) -> dict:
    values = {
        "name": "stunet",
        "image": "image:1",
        "tpu_slice": tpu_slice,
        "arguments": ("--config=configs/stunet.py:full",),
        "compiled": "gs://bucket/compiled",
    }
    return yaml.safe_load(Job(**(values | changes)).manifest())


def job_of(jobset: dict) -> dict:
    (replicated_job,) = jobset["spec"]["replicatedJobs"]
    return replicated_job["template"]["spec"]


# Node pools as GKE's documentation lists them: machine type, nodes, chips a node.
NODE_POOLS = [
    ("v4", "2x2x1", "ct4p-hightpu-4t", 1, 4),
    ("v4", "2x2x4", "ct4p-hightpu-4t", 4, 4),
    ("v4", "8x8x12", "ct4p-hightpu-4t", 192, 4),
    ("v5e", "1x1", "ct5lp-hightpu-1t", 1, 1),
    ("v5e", "2x2", "ct5lp-hightpu-4t", 1, 4),
    ("v5e", "2x4", "ct5lp-hightpu-4t", 2, 4),
    ("v5e", "16x16", "ct5lp-hightpu-4t", 64, 4),
    ("v5p", "2x2x1", "ct5p-hightpu-4t", 1, 4),
    ("v5p", "2x4x4", "ct5p-hightpu-4t", 8, 4),
    ("v5p", "4x4x12", "ct5p-hightpu-4t", 48, 4),
    ("v5p", "16x16x24", "ct5p-hightpu-4t", 1536, 4),
    ("v6e", "1x1", "ct6e-standard-1t", 1, 1),
    ("v6e", "4x8", "ct6e-standard-4t", 8, 4),
]


@pytest.mark.parametrize(("accelerator", "topology", "machine", "hosts", "chips"), NODE_POOLS)
def test_hosts_and_chips(accelerator, topology, machine, hosts, chips):
    tpu_slice = slices.describe_slice(accelerator, topology)
    assert (tpu_slice.machine_type, tpu_slice.hosts) == (machine, hosts)
    assert tpu_slice.chips_per_host == chips
    jobset = manifest(tpu_slice)
    check_jobset(jobset)
    job = job_of(jobset)
    assert job["parallelism"] == job["completions"] == hosts
    (container,) = job["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert hosts * chips == math.prod(map(int, topology.split("x")))


@pytest.mark.parametrize(
    ("accelerator", "topology"),
    [
        *(("v5p", t) for t in ("4x4", "4x4x4x4", "4x4x6", "8x4x4", "1x1x1", "16x16x28")),
        *(("v4", t) for t in ("16x16x20", "4x4x0")),
        *(("v5e", t) for t in ("4x4x4", "8x4", "32x32")),
        *(("v6e", t) for t in ("3x3", "4X4", "16", "")),
    ],
)
def test_topologies_that_do_not_exist(accelerator, topology):
    with pytest.raises(UserError, match=re.escape(f"--topology={topology}: {accelerator} has ")):
        slices.describe_slice(accelerator, topology)


@pytest.mark.parametrize(
    ("accelerator", "topology", "label"),
    [
        ("v4", "2x2x4", "tpu-v4-podslice"),
        ("v5e", "4x4", "tpu-v5-lite-podslice"),
        ("v5p", "2x2x4", "tpu-v5p-slice"),
        ("v6e", "4x4", "tpu-v6e-slice"),
    ],
)
def test_nodes_are_chosen_by_type_and_topology(accelerator, topology, label):
    pod = job_of(manifest(slices.describe_slice(accelerator, topology)))["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology,
    }


def test_each_slice_is_a_job():
    jobset = manifest(slices.describe_slice("v6e", "8x8"), slices=3)
    check_jobset(jobset)
    (replicated_job,) = jobset["spec"]["replicatedJobs"]
    assert replicated_job["replicas"] == 3
    assert job_of(jobset)["parallelism"] == 16
    (topology_key,) = jobset["metadata"]["annotations"].values()
    assert topology_key == "cloud.google.com/gke-nodepool"


def test_spot_and_the_other_choices():
    jobset = manifest(
        slices.describe_slice("v5p", "2x2x1"), spot=True, namespace="films",
        service_account="trainer", grace_seconds=900, max_restarts=3,
    )  # fmt: skip
    check_jobset(jobset)
    pod = job_of(jobset)["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    assert tolerated == {"google.com/tpu", "cloud.google.com/gke-spot"}
    assert (pod["serviceAccountName"], pod["terminationGracePeriodSeconds"]) == ("trainer", 900)
    assert jobset["metadata"]["namespace"] == "films"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 3


def test_bucket_of_videos_is_a_folder_of_the_pods():
    tpu_slice = slices.describe_slice("v5p", "2x2x1")
    without = job_of(manifest(tpu_slice))["template"]
    assert without["spec"]["volumes"] == [] and without["metadata"]["annotations"] == {}
    jobset = manifest(tpu_slice, data_bucket="videos")
    check_jobset(jobset)
    pod = job_of(jobset)["template"]
    assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    (volume,) = pod["spec"]["volumes"]
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "videos"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/data")


def outcome(jobset: dict, exit_code: int, disrupted: bool = False) -> str:
    """What becomes of the JobSet when its first pod to fail fails so, by the documented rules."""
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job_of(jobset)["podFailurePolicy"]["rules"]):
        codes = rule.get("onExitCodes", {"values": []})["values"]
        if exit_code in codes or (disrupted and "onPodConditions" in rule):
            assert rule["action"] == "FailJob"
            reason = "PodFailurePolicy"
            message = "Container trainer for pod default/stunet-slice-0-0-x failed with exit code "
            message += f"{exit_code} matching FailJob rule at index {index}"
            break
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("exit_code", "disrupted", "action"),
    [
        (75, False, "RestartJobSetAndIgnoreMaxRestarts"),  # saved, by hand or by a signal
        (75, True, "RestartJobSetAndIgnoreMaxRestarts"),  # saved before the node went away
        (137, True, "RestartJobSetAndIgnoreMaxRestarts"),  # the node went away too soon
        (errors.EXIT_USER_ERROR, False, "FailJobSet"),
        (76, False, "RestartJobSet"),  # a peer is gone: counts, for a defect may be behind it
        (1, False, "RestartJobSet"),
        (137, False, "RestartJobSet"),  # out of memory
    ],
)
def test_what_restarts_and_what_counts(exit_code, disrupted, action):
    jobset = manifest(slices.describe_slice("v5p", "4x4x4"))
    assert outcome(jobset, exit_code, disrupted) == action


def test_binary_prints_a_manifest_that_runs_this_config():
    strange = '--config.train.note=it\'s: {a} #1 \\ "$x"'
    result = run("--slices=2", "--arg=--config.mesh.fsdp=8", f"--arg={strange}")
    assert result.returncode == 0, result.stderr
    jobset = yaml.safe_load(result.stdout)
    check_jobset(jobset)
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    assert container["image"] == FLAGS["image"]
    assert container["command"] == ["python", "-u", "-m", "lumiere_jax.main"]
    assert container["args"] == [
        "--config=configs/stunet.py:full", "--workdir=gs://bucket/stunet", "--distributed",
        "--config.mesh.fsdp=8", strange,
    ]  # fmt: skip
    compiled = {"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://bucket/stunet/compiled"}
    assert container["env"] == [compiled]
    first = result.stdout.splitlines()[0]
    assert first == "# 2 x 4x4x4, 128 chips: each slice a node pool of 16 nodes ct5p-hightpu-4t."


def test_output_is_written_and_a_dry_run_writes_nothing(tmp_path):
    path = tmp_path / "job.yaml"
    dry = run(f"--output={path}", "--dry_run")
    assert dry.returncode == 0 and not path.exists()
    written = run(f"--output={path}")
    assert written.returncode == 0 and written.stdout == ""
    assert path.read_text() == dry.stdout != ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topology": "4x4"}, "--topology=4x4: v5p has 2x2x1"),
        ({"accelerator": "h100"}, "--accelerator=h100"),
        ({"slices": "0"}, "--slices=0"),
        ({"slices": "2", "topology": "2x2x1"}, "2x2x1 is one host"),
        ({"workdir": "/runs"}, "give a folder in a bucket"),
        ({"workdir": "gs://"}, "give a folder in a bucket"),
        ({"data_bucket": "gs://videos"}, "--data_bucket=gs://videos"),
        ({"name": "My_job"}, "--name=My_job"),
        ({"name": "a" * 50}, "it must be shorter by 4 characters"),
        ({"namespace": "a-"}, "--namespace=a-"),
        ({"image": "my image"}, "--image='my image'"),
        ({"image": None}, "--image"),
        ({"grace_seconds": "5"}, "--grace_seconds=5"),
        ({"topolgy": "4x4"}, "topolgy"),
        ({"output": "/nowhere/job.yaml"}, "--output=/nowhere/job.yaml"),
    ],
)
def test_a_mistake_is_told_in_one_line(changes, message):
    assert_user_error(run(**changes), message)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda jobset: jobset["spec"].pop("replicatedJobs"),
        lambda jobset: jobset["spec"].update(suspendd=False),
        lambda jobset: jobset["metadata"].update(name="Name"),
        lambda jobset: jobset["metadata"].update(name="a" * 50),
        lambda jobset: job_of(jobset).update(parallelism="16"),
        lambda jobset: job_of(jobset)["template"]["spec"].update(restartPolicy="OnFailure"),
        lambda jobset: job_of(jobset)["template"]["spec"]["nodeSelector"].update(a="b c"),
        lambda jobset: job_of(jobset)["template"]["spec"]["containers"][0].pop("image"),
        lambda jobset: job_of(jobset)["template"]["spec"]["containers"][0].update(
            volumeMounts=[{"name": "data", "mountPath": "/data"}]
        ),
        lambda jobset: jobset["spec"]["failurePolicy"]["rules"][0].update(name="preempted"),
    ],
)
def test_the_check_of_manifests_sees_mistakes(spoil):
    jobset = manifest(slices.describe_slice("v5p", "4x4x4"))
    check_jobset(jobset)
    spoil(jobset)
    with pytest.raises((AssertionError, ValidationError)):
        check_jobset(jobset)

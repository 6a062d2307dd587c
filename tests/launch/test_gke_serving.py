"""The manifests of servers and workers on GKE: what Kubernetes accepts, and what they start."""

import subprocess
import sys

import pytest
import yaml
from jsonschema import ValidationError

from launch.gke.serving import Serving
from launch.gke.slices import describe_slice
from tests.inference.running import run as run_command
from tests.launch.cluster import check_cluster
from tests.launch.scripts import REPOSITORY, assert_user_error

FLAGS = {
    "image": "us-docker.pkg.dev/p/r/lumiere_jax:1",
    "bundle": "gs://bucket/models/small",
    "domain": "videos.example.com",
    "accelerator": "nvidia-l4",
}


def run(**changes: str | None) -> subprocess.CompletedProcess:
    flags = [f"--{name}={value}" for name, value in (FLAGS | changes).items() if value is not None]
    command = [sys.executable, "-m", "launch.gke.render_serving", *flags]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def objects(**changes) -> list[dict]:
    serving = Serving(**({"name": "lumiere", "secret": "lumiere"} | FLAGS | changes))
    return list(yaml.safe_load_all(serving.manifest()))


def find(found: list[dict], kind: str, name: str = "") -> dict:
    """The specification of the one object of this kind, and with this in its name."""
    (manifest,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"].endswith(name)]
    return manifest["spec"]


def pod(found: list[dict], name: str) -> tuple[dict, dict]:
    """The pod of a deployment, and its one container."""
    spec = find(found, "Deployment", name)["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_servers_and_workers_with_a_gpu_each():
    found = objects()
    check_cluster(found)
    _, server = pod(found, "server")
    assert server["args"] == [
        "--bundle=/bundle/models/small", "--data=/scratch", "--workers=0", "--host=0.0.0.0",
        "--port=8000", "--api_key_file=/secrets/api_keys",
    ]  # fmt: skip
    spec, worker = pod(found, "worker")
    assert worker["args"] == [*server["args"][:2], "--worker_only", "--workers=1"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert worker["resources"]["limits"] == {"nvidia.com/gpu": 1}
    for container in (server, worker):
        assert container["command"] == ["python", "-u", "-m", "lumiere_jax.serve"]
        (variable,) = container["env"]
        secret = {"secretKeyRef": {"name": "lumiere", "key": "database"}}
        assert (variable["name"], variable["valueFrom"]) == ("LUMIERE_DATABASE", secret)


@pytest.mark.parametrize("name", ["server", "worker"])
def test_the_arguments_are_flags_of_the_server(name):
    _, container = pod(objects(), name)
    code, _, told = run_command("serve", *container["args"])
    assert code == 2 and "there is no folder /bundle/models/small" in told


def test_workers_on_a_tpu_of_one_host():
    found = objects(
        accelerator=describe_slice("v5e", "2x2"), spot=True, namespace="films", servers=3,
        service_account="reader", min_workers=2, max_workers=9, jobs_per_worker=8,
        worker_memory="64Gi", bundle="someone/model",
    )  # fmt: skip
    check_cluster(found)
    assert {o["metadata"]["namespace"] for o in found} == {"films"}
    spec, worker = pod(found, "worker")
    assert worker["resources"]["requests"] == {"cpu": 4, "memory": "64Gi", "google.com/tpu": 4}
    assert worker["args"][0] == "--bundle=someone/model"
    assert [volume["name"] for volume in spec["volumes"]] == ["scratch"]
    assert spec["serviceAccountName"] == "reader"
    assert spec["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    tolerated = {toleration["key"] for toleration in spec["tolerations"]}
    assert tolerated == {"google.com/tpu", "cloud.google.com/gke-spot"}
    assert find(found, "Deployment", "server")["replicas"] == 3
    scaled = find(found, "ScaledObject")
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 9)
    assert scaled["triggers"][0]["metadata"]["targetQueryValue"] == "8"


@pytest.mark.parametrize(("min_workers", "path"), [(1, "health"), (0, "health/live")])
def test_servers_take_the_job_that_the_first_worker_is_started_for(min_workers, path):
    found = objects(min_workers=min_workers)
    _, server = pod(found, "server")
    assert server["readinessProbe"]["httpGet"]["path"] == f"/api/v1/{path}"
    assert find(found, "BackendConfig")["healthCheck"]["requestPath"] == f"/api/v1/{path}"
    assert server["livenessProbe"]["httpGet"]["path"] == "/api/v1/health/live"


def test_the_command_prints_the_manifests():
    result = run(accelerator="v5e", topology="1x1")
    assert result.returncode == 0, result.stderr
    first = result.stdout.splitlines()[0]
    assert first == "# 2 servers, and 1 to 4 workers on nodes of their own with ct5lp-hightpu-1t."
    given = FLAGS | {"accelerator": describe_slice("v5e", "1x1")}
    assert list(yaml.safe_load_all(result.stdout)) == objects(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accelerator": "v5p"}, "--topology goes with a TPU"),
        ({"topology": "1x1"}, "--topology goes with a TPU"),
        ({"accelerator": "v5e", "topology": "4x4"}, "--topology=4x4: a worker is one process"),
        ({"accelerator": "h100"}, "--accelerator=h100"),
        ({"name": "a" * 47}, "46 characters at most"),
        ({"namespace": "a-"}, "--namespace=a-"),
        ({"image": "my image"}, "--image='my image'"),
        ({"bundle": "gs://"}, "--bundle=gs://"),
        ({"domain": "https://x.org"}, "--domain=https://x.org"),
        ({"min_workers": "5"}, "--min_workers=5 is more than"),
        ({"worker_memory": "16"}, "--worker_memory=16"),
    ],
)
def test_a_mistake_is_told_in_one_line(changes, message):
    assert_user_error(run(**changes), message)


def change(found: list[dict], kind: str, path: str, value: object) -> None:
    """Sets a field, which is named by keys with dots between them."""
    place = find(found, kind, "server" if kind == "Deployment" else "")
    *parts, last = path.split(".")
    for part in parts:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "replica", 2),
        ("Deployment", "replicas", "2"),
        ("Deployment", "selector.matchLabels.app", "other"),
        ("Deployment", "template.spec.containers.0.readinessProbe.httpGet.port", "metrics"),
        ("Deployment", "template.spec.containers.0.volumeMounts.0.name", "x"),
        ("Service", "selector.app", "other"),
        ("Ingress", "defaultBackend.service.name", "other"),
        ("PodDisruptionBudget", "maxUnavailabel", 1),
        ("ScaledObject", "scaleTargetRef.name", "other"),
        ("ScaledObject", "triggers.0.metadata.targetQueryValue", 4),
        ("ScaledObject", "triggers.0.authenticationRef.name", "other"),
        ("BackendConfig", "timeout", 3600),
    ],
)
def test_the_check_of_manifests_sees_mistakes(kind, path, value):
    found = objects()
    change(found, kind, path, value)
    with pytest.raises((AssertionError, ValidationError)):
        check_cluster(found)

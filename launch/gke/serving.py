"""The manifests of servers and workers on GKE, filled in from their template."""

import re
from dataclasses import dataclass

from launch.gke import pods
from launch.gke.slices import Slice
from lumiere_jax.runtime.errors import UserError

_BUNDLE_FOLDER = "/bundle"
_SECRETS = "/secrets"
_SCRATCH = "/scratch"
_WORKER_CORES = 4


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Servers behind a load balancer, and as many workers as the queue in PostgreSQL asks for."""

    name: str
    image: str  # of the containers
    bundle: str  # gs://BUCKET/FOLDER, OWNER/NAME of a model hub, or a folder of the image
    domain: str  # by which clients call the servers
    accelerator: Slice | str  # of each worker: a TPU of one host, or a GPU such as nvidia-l4
    secret: str  # has the keys `database`, a URL, and `api_keys`, a line for each
    servers: int = 2
    min_workers: int = 1
    max_workers: int = 4
    jobs_per_worker: int = 4  # in the queue, above which one more worker is started
    worker_memory: str = "16Gi"
    spot: bool = False  # whether workers run on Spot nodes
    namespace: str = "default"
    service_account: str = "default"  # Kubernetes' own, of the pods

    def manifest(self) -> str:
        """The YAML.

        Raises:
          UserError: if Kubernetes would refuse it.
        """
        _check(self)
        # Before the first worker lives, servers have to take the job that it is started for.
        ready = "health" if self.min_workers else "health/live"
        values = {
            "servers_name": f"{self.name}-server",
            "workers_name": f"{self.name}-worker",
            "namespace": self.namespace,
            "image": self.image,
            "service_account": self.service_account,
            "secret": self.secret,
            "servers": self.servers,
            "min_workers": self.min_workers,
            "max_workers": self.max_workers,
            "jobs_per_worker": str(self.jobs_per_worker),
            "domain": self.domain,
            "ready_path": f"/api/v1/{ready}",
            "backend_config": f'{{"default": "{self.name}-server"}}',
            **_nodes(self),
            **_folders(self),
        }
        return pods.fill("serving.yaml.template", values, summary=_summary(self))


def _nodes(serving: Serving) -> dict[str, object]:
    """Where workers run, and what each takes."""
    place = serving.accelerator
    if isinstance(place, Slice):
        nodes, device = (
            pods.tpu_nodes(place, serving.spot),
            {"google.com/tpu": place.chips_per_host},
        )
    else:
        nodes, device = pods.gpu_nodes(place, serving.spot), {"nvidia.com/gpu": 1}
    memory = {"cpu": _WORKER_CORES, "memory": serving.worker_memory}
    return nodes | {"worker_requests": memory | device, "worker_limits": device}


def _folders(serving: Serving) -> dict[str, object]:
    """Arguments, and the folders that they name."""
    bucket, folder = _bundle_place(serving.bundle)
    bundle = pods.bucket_volume("bundle", bucket, _BUNDLE_FOLDER)
    volumes = [{"name": "scratch", "emptyDir": {}}, *bundle["volumes"]]
    mounts = [{"name": "scratch", "mountPath": _SCRATCH}, *bundle["mounts"]]
    keys = {"secretName": serving.secret, "items": [{"key": "api_keys", "path": "api_keys"}]}
    arguments = [f"--bundle={folder}", f"--data={_SCRATCH}"]
    return {
        "pod_annotations": bundle["pod_annotations"],
        "worker_volumes": volumes,
        "worker_mounts": mounts,
        "worker_arguments": [*arguments, "--worker_only", "--workers=1"],
        "server_volumes": [*volumes, {"name": "keys", "secret": keys}],
        "server_mounts": [*mounts, {"name": "keys", "mountPath": _SECRETS, "readOnly": True}],
        "server_arguments": [
            *arguments,
            "--workers=0",
            "--host=0.0.0.0",
            "--port=8000",
            f"--api_key_file={_SECRETS}/api_keys",
        ],
    }


def _bundle_place(bundle: str) -> tuple[str | None, str]:
    """The bucket that is mounted, if any, and what the servers are told."""
    if not bundle.startswith("gs://"):
        return None, bundle
    bucket, _, folder = bundle.removeprefix("gs://").partition("/")
    return bucket, f"{_BUNDLE_FOLDER}/{folder}".rstrip("/")


def _check(serving: Serving) -> None:
    for flag in ("name", "namespace", "service_account", "secret"):
        pods.check_label(flag, getattr(serving, flag))
    if len(serving.name) > 46:  # Kubernetes names pods NAME-server-1234567890-abcde
        raise UserError(f"--name={serving.name}: give one of 46 characters at most.")
    pods.check_image(serving.image)
    bucket, _ = _bundle_place(serving.bundle)
    if not serving.bundle or (bucket is not None and not re.fullmatch(pods.BUCKET_NAME, bucket)):
        raise UserError(
            f"--bundle={serving.bundle}: give gs://BUCKET/FOLDER, OWNER/NAME of a model hub, or a "
            "folder of the image."
        )
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", serving.domain):
        raise UserError(f"--domain={serving.domain}: give the name of the servers, as in a URL.")
    if not re.fullmatch(r"[1-9][0-9]*[GM]i", serving.worker_memory):
        raise UserError(f"--worker_memory={serving.worker_memory}: write it as 16Gi.")
    if serving.min_workers > serving.max_workers:
        raise UserError(f"--min_workers={serving.min_workers} is more than --max_workers.")
    place = serving.accelerator
    if isinstance(place, Slice) and place.hosts > 1:
        raise UserError(
            f"--topology={place.topology}: a worker is one process on one host, and that is "
            f"{place.hosts}; give a smaller one."
        )
    if isinstance(place, str) and not re.fullmatch(r"nvidia-[a-z0-9-]+", place):
        raise UserError(f"--accelerator={place}: give a TPU, or a GPU such as nvidia-l4.")


def _summary(serving: Serving) -> str:
    place = serving.accelerator
    device = place.machine_type if isinstance(place, Slice) else place
    workers = f"{serving.min_workers} to {serving.max_workers} workers"
    return f"{serving.servers} servers, and {workers} on nodes of their own with {device}."

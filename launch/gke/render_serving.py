"""Prints the manifests of servers and workers on GKE, for `kubectl apply -f -`.

    python -m launch.gke.render_serving --name=lumiere --image=IMAGE --bundle=gs://BUCKET/bundle \
        --domain=videos.example.com --accelerator=nvidia-l4

docs/serving_cluster.md has the whole way.
"""

from absl import flags

from launch.gke.serving import Serving
from launch.gke.slices import ACCELERATORS, Slice, describe_slice
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_NAME = flags.DEFINE_string("name", "lumiere", "What the names of all objects begin with.")
_NAMESPACE = flags.DEFINE_string("namespace", "default", "Kubernetes namespace.")
_IMAGE = flags.DEFINE_string("image", None, "Image built from launch/Dockerfile.", required=True)
_BUNDLE = flags.DEFINE_string(
    "bundle",
    None,
    "Weights: gs://BUCKET/FOLDER, OWNER/NAME of a model hub, or a folder of the image.",
    required=True,
)
_DOMAIN = flags.DEFINE_string("domain", None, "Name by which clients call it.", required=True)
_ACCELERATOR = flags.DEFINE_string(
    "accelerator",
    None,
    f"Of each worker: a TPU generation ({', '.join(ACCELERATORS)}) with --topology, or a GPU as "
    "GKE calls it, such as nvidia-l4.",
    required=True,
)
_TOPOLOGY = flags.DEFINE_string("topology", None, "Chips of a TPU along each axis, such as 1x1.")
_SECRET = flags.DEFINE_string(
    "secret", "lumiere", "Secret with the keys `database`, a URL, and `api_keys`, one per line."
)
_SERVERS = flags.DEFINE_integer("servers", 2, "How many servers.", 1, 100)
_MIN_WORKERS = flags.DEFINE_integer("min_workers", 1, "Workers of an empty queue.", 0, 1000)
_MAX_WORKERS = flags.DEFINE_integer("max_workers", 4, "Workers at most.", 1, 1000)
_JOBS_PER_WORKER = flags.DEFINE_integer(
    "jobs_per_worker", 4, "Unfinished jobs for each worker, above which one more starts.", 1, 1000
)
_WORKER_MEMORY = flags.DEFINE_string("worker_memory", "16Gi", "Memory that a worker asks for.")
_SPOT = flags.DEFINE_bool("spot", False, "Spot nodes for workers; jobs of one that goes return.")
_SERVICE_ACCOUNT = flags.DEFINE_string(
    "service_account", "default", "Kubernetes service account that can read the bucket."
)


def main(argv: list[str]) -> None:
    """Renders what the flags describe."""
    del argv
    serving = Serving(
        name=_NAME.value,
        namespace=_NAMESPACE.value,
        image=_IMAGE.value,
        bundle=_BUNDLE.value,
        domain=_DOMAIN.value,
        accelerator=_accelerator(),
        secret=_SECRET.value,
        servers=_SERVERS.value,
        min_workers=_MIN_WORKERS.value,
        max_workers=_MAX_WORKERS.value,
        jobs_per_worker=_JOBS_PER_WORKER.value,
        worker_memory=_WORKER_MEMORY.value,
        spot=_SPOT.value,
        service_account=_SERVICE_ACCOUNT.value,
    )
    print(serving.manifest(), end="")


def _accelerator() -> Slice | str:
    is_tpu = _ACCELERATOR.value in ACCELERATORS
    if is_tpu != bool(_TOPOLOGY.value):
        raise UserError(
            "--topology goes with a TPU: give it with one of --accelerator="
            f"{', '.join(ACCELERATORS)}, and only there."
        )
    return describe_slice(_ACCELERATOR.value, _TOPOLOGY.value) if is_tpu else _ACCELERATOR.value


if __name__ == "__main__":
    errors.run(main)

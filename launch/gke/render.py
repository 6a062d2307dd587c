"""Prints the manifest of a training job on GKE, for `kubectl apply -f -`.

    python -m launch.gke.render --name=stunet --image=IMAGE --accelerator=v5p --topology=4x4x4 \
        --config=configs/stunet.py:full --workdir=gs://BUCKET/stunet --arg=--config.mesh.fsdp=8

One JobSet, in which every slice is a replicated job and every host of it a pod.
launch/README.md has the whole way.
"""

import re
from pathlib import Path

from absl import flags

from launch.gke.manifest import DATA_FOLDER, Job
from launch.gke.pods import BUCKET_NAME
from launch.gke.slices import ACCELERATORS, describe_slice
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError

_NAME = flags.DEFINE_string("name", None, "Name of the job.", required=True)
_NAMESPACE = flags.DEFINE_string("namespace", "default", "Kubernetes namespace.")
_IMAGE = flags.DEFINE_string("image", None, "Image built from launch/Dockerfile.", required=True)
_ACCELERATOR = flags.DEFINE_enum(
    "accelerator", None, ACCELERATORS, "TPU generation.", required=True
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Chips of a slice along each axis, such as 4x4x4.", required=True
)
_SLICES = flags.DEFINE_integer("slices", 1, "How many slices train together.", lower_bound=1)
_SPOT = flags.DEFINE_bool("spot", False, "Take Spot nodes: cheaper, and preempted at any time.")
_SERVICE_ACCOUNT = flags.DEFINE_string(
    "service_account", "default", "Kubernetes service account; it must be able to write the bucket."
)
_GRACE = flags.DEFINE_integer(
    "grace_seconds", 600, "From SIGTERM to SIGKILL.", lower_bound=30, upper_bound=3600
)
_MAX_RESTARTS = flags.DEFINE_integer(
    "max_restarts", 10, "How often a failure may restart the job; preemptions do not count.", 0
)
_CONFIG = flags.DEFINE_string(
    "config", None, "File of configs/, with a variant after a colon.", required=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "gs://BUCKET/FOLDER of the run.", required=True)
_ARGUMENTS = flags.DEFINE_multi_string(
    "arg", [], "One more argument of lumiere_jax.main, such as --arg=--config.mesh.fsdp=8."
)
_DATA_BUCKET = flags.DEFINE_string(
    "data_bucket",
    None,
    f"Bucket of videos that the pods see, read-only, as the folder {DATA_FOLDER}.",
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write; standard output if not given.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the manifest, though --output is given.")


def main(argv: list[str]) -> None:
    """Renders what the flags describe."""
    del argv
    if not re.fullmatch(rf"gs://{BUCKET_NAME}(/.*)?", _WORKDIR.value):
        raise UserError(
            f"--workdir={_WORKDIR.value}: a pod's own disk is lost with the pod; "
            "give a folder in a bucket, gs://BUCKET/FOLDER."
        )
    job = Job(
        name=_NAME.value,
        namespace=_NAMESPACE.value,
        image=_IMAGE.value,
        tpu_slice=describe_slice(_ACCELERATOR.value, _TOPOLOGY.value),
        slices=_SLICES.value,
        spot=_SPOT.value,
        service_account=_SERVICE_ACCOUNT.value,
        grace_seconds=_GRACE.value,
        max_restarts=_MAX_RESTARTS.value,
        arguments=(
            f"--config={_CONFIG.value}",
            f"--workdir={_WORKDIR.value}",
            "--distributed",
            *_ARGUMENTS.value,
        ),
        compiled=f"{_WORKDIR.value.rstrip('/')}/compiled",
        data_bucket=_DATA_BUCKET.value,
    )
    manifest = job.manifest()
    if _OUTPUT.value and not _DRY_RUN.value:
        _write(Path(_OUTPUT.value), manifest)
    else:
        print(manifest, end="")


def _write(path: Path, manifest: str) -> None:
    try:
        path.write_text(manifest, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output={path}: {error.strerror}; give another file.") from error


if __name__ == "__main__":
    errors.run(main)

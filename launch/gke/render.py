"""Prints the manifest of a training job on GKE, for `kubectl apply -f -`.

    python -m launch.gke.render --name=stunet --image=IMAGE --accelerator=v5p --topology=4x4x4 \
        --config=configs/stunet.py:full --workdir=gs://BUCKET/stunet --arg=--config.mesh.fsdp=8

One JobSet, in which every slice is a replicated job and every host of it a pod.
launch/README.md has the whole way.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from absl import flags

from launch.gke.slices import ACCELERATORS, Slice, describe_slice
from lumiere_jax import errors
from lumiere_jax.errors import UserError

_TEMPLATE = Path(__file__).with_name("jobset.yaml.template")
_DATA = "/data"
_BUCKET = r"[a-z0-9][a-z0-9._-]+"
_LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"

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
    "data_bucket", None, f"Bucket of videos that the pods see, read-only, as the folder {_DATA}."
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write; standard output if not given.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the manifest, though --output is given.")


def render(
    *,
    name: str,
    namespace: str,
    image: str,
    tpu_slice: Slice,
    slices: int,
    spot: bool,
    service_account: str,
    grace_seconds: int,
    max_restarts: int,
    arguments: Sequence[str],
    compiled: str,
    data_bucket: str | None = None,
) -> str:
    """Fills the template.

    Args:
      name: of the JobSet.
      namespace: that it is created in.
      image: of the container.
      tpu_slice: what each slice is.
      slices: how many.
      spot: whether on Spot nodes.
      service_account: Kubernetes service account of the pods.
      grace_seconds: from SIGTERM to SIGKILL.
      max_restarts: limit of the restarts that count.
      arguments: of `lumiere_jax.main`.
      compiled: folder of compiled programs, in a bucket.
      data_bucket: mounted at /data, where it is given.

    Returns:
      YAML.

    Raises:
      UserError: if Kubernetes would refuse it.
    """
    _check_names(name, namespace, service_account, tpu_slice, slices)
    if not image or re.search(r"\s", image):
        raise UserError(f"--image={image!r}: give the image as REGISTRY/NAME:TAG.")
    if slices > 1 and tpu_slice.hosts == 1:
        raise UserError(
            f"--slices={slices}: GKE joins slices of several hosts only, and "
            f"{tpu_slice.topology} is one host; give a larger --topology."
        )
    # JSON is YAML too, and quotes whatever needs it.
    values = {
        "name": name,
        "namespace": namespace,
        "image": image,
        "service_account": service_account,
        "slices": slices,
        "hosts": tpu_slice.hosts,
        "chips": tpu_slice.chips_per_host,
        "max_restarts": max_restarts,
        "grace": grace_seconds,
        "arguments": list(arguments),
        "compiled": compiled,
        **_nodes(tpu_slice, spot),
        **_data_volume(data_bucket),
    }
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        {key: json.dumps(value) for key, value in values.items()},
        summary=_summary(tpu_slice, slices),
    )


def _nodes(tpu_slice: Slice, spot: bool) -> dict[str, object]:
    """Which nodes the pods go to, and which taints of theirs they bear."""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu_slice.accelerator_label,
        "cloud.google.com/gke-tpu-topology": tpu_slice.topology,
    }
    taints = ["google.com/tpu"]
    if spot:
        selector["cloud.google.com/gke-spot"] = "true"
        taints.append("cloud.google.com/gke-spot")
    tolerations = [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints]
    return {"node_selector": selector, "tolerations": tolerations}


def _data_volume(bucket: str | None) -> dict[str, object]:
    """The bucket of videos as a folder, by Cloud Storage FUSE; nothing without a bucket."""
    if bucket is None:
        return {"pod_annotations": {}, "volumes": [], "mounts": []}
    if not re.fullmatch(_BUCKET, bucket):
        raise UserError(f"--data_bucket={bucket}: give the name alone, without gs:// and folders.")
    attributes = {"bucketName": bucket, "mountOptions": "implicit-dirs"}
    driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True}
    return {
        "pod_annotations": {"gke-gcsfuse/volumes": "true"},
        "volumes": [{"name": "data", "csi": driver | {"volumeAttributes": attributes}}],
        "mounts": [{"name": "data", "mountPath": _DATA, "readOnly": True}],
    }


def _check_names(
    name: str, namespace: str, service_account: str, tpu_slice: Slice, slices: int
) -> None:
    for flag, value in (
        ("name", name),
        ("namespace", namespace),
        ("service_account", service_account),
    ):
        if not re.fullmatch(_LABEL, value) or len(value) > 63:
            raise UserError(
                f"--{flag}={value}: use lower-case letters, digits and '-', with a letter first "
                "and no '-' last, 63 characters at most."
            )
    # Kubernetes names pods NAME-slice-SLICE-HOST-abcde, in 63 characters.
    longest = f"{name}-slice-{slices - 1}-{tpu_slice.hosts - 1}-abcde"
    if len(longest) > 63:
        raise UserError(f"--name={name}: it must be shorter by {len(longest) - 63} characters.")


def _summary(tpu_slice: Slice, slices: int) -> str:
    chips = slices * tpu_slice.hosts * tpu_slice.chips_per_host
    return (
        f"{slices} x {tpu_slice.topology}, {chips} chips: each slice a node pool of "
        f"{tpu_slice.hosts} nodes {tpu_slice.machine_type}."
    )


def main(argv: list[str]) -> None:
    """Renders what the flags describe."""
    del argv
    if not re.fullmatch(rf"gs://{_BUCKET}(/.*)?", _WORKDIR.value):
        raise UserError(
            f"--workdir={_WORKDIR.value}: a pod's own disk is lost with the pod; "
            "give a folder in a bucket, gs://BUCKET/FOLDER."
        )
    manifest = render(
        name=_NAME.value,
        namespace=_NAMESPACE.value,
        image=_IMAGE.value,
        tpu_slice=describe_slice(_ACCELERATOR.value, _TOPOLOGY.value),
        slices=_SLICES.value,
        spot=_SPOT.value,
        service_account=_SERVICE_ACCOUNT.value,
        grace_seconds=_GRACE.value,
        max_restarts=_MAX_RESTARTS.value,
        arguments=[
            f"--config={_CONFIG.value}",
            f"--workdir={_WORKDIR.value}",
            "--distributed",
            *_ARGUMENTS.value,
        ],
        compiled=f"{_WORKDIR.value.rstrip('/')}/compiled",
        data_bucket=_DATA_BUCKET.value,
    )
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

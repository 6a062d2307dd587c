"""The manifest of a training job on GKE, filled in from its template."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from launch.gke.slices import Slice
from lumiere_jax.runtime.errors import UserError

DATA_FOLDER = "/data"
BUCKET_NAME = r"[a-z0-9][a-z0-9._-]+"
_TEMPLATE = Path(__file__).with_name("jobset.yaml.template")
_LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"


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
    if not re.fullmatch(BUCKET_NAME, bucket):
        raise UserError(f"--data_bucket={bucket}: give the name alone, without gs:// and folders.")
    attributes = {"bucketName": bucket, "mountOptions": "implicit-dirs"}
    driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True}
    return {
        "pod_annotations": {"gke-gcsfuse/volumes": "true"},
        "volumes": [{"name": "data", "csi": driver | {"volumeAttributes": attributes}}],
        "mounts": [{"name": "data", "mountPath": DATA_FOLDER, "readOnly": True}],
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

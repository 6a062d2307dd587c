"""What manifests of jobs and of servers share: nodes, buckets as folders, and checks of names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from launch.gke.slices import Slice
from lumiere_jax.runtime.errors import UserError

BUCKET_NAME = r"[a-z0-9][a-z0-9._-]+"
_LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"


def fill(template: str, values: Mapping[str, object], **comments: str) -> str:
    """A template of this folder, with `values` in the form of JSON: it is YAML, and quotes."""
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    written = {key: json.dumps(value) for key, value in values.items()}
    return Template(text).substitute(written, **comments)


def tpu_nodes(tpu_slice: Slice, spot: bool) -> dict[str, object]:
    """Which nodes the pods go to, and which taints of theirs they bear."""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu_slice.accelerator_label,
        "cloud.google.com/gke-tpu-topology": tpu_slice.topology,
    }
    return _nodes(selector, "google.com/tpu", spot)


def gpu_nodes(gpu: str, spot: bool) -> dict[str, object]:
    """The same for nodes with a GPU, which GKE calls such as nvidia-l4."""
    return _nodes({"cloud.google.com/gke-accelerator": gpu}, "nvidia.com/gpu", spot)


def _nodes(selector: dict[str, str], taint: str, spot: bool) -> dict[str, object]:
    taints = [taint]
    if spot:
        selector = selector | {"cloud.google.com/gke-spot": "true"}
        taints.append("cloud.google.com/gke-spot")
    tolerations = [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints]
    return {"node_selector": selector, "tolerations": tolerations}


def bucket_volume(name: str, bucket: str | None, folder: str) -> dict[str, object]:
    """A bucket as a folder, by Cloud Storage FUSE; nothing without a bucket."""
    if bucket is None:
        return {"pod_annotations": {}, "volumes": [], "mounts": []}
    attributes = {"bucketName": bucket, "mountOptions": "implicit-dirs"}
    driver = {"driver": "gcsfuse.csi.storage.gke.io", "readOnly": True}
    return {
        "pod_annotations": {"gke-gcsfuse/volumes": "true"},
        "volumes": [{"name": name, "csi": driver | {"volumeAttributes": attributes}}],
        "mounts": [{"name": name, "mountPath": folder, "readOnly": True}],
    }


def check_label(flag: str, value: str) -> None:
    """Raises a `UserError` for a name that Kubernetes would refuse."""
    if not re.fullmatch(_LABEL, value) or len(value) > 63:
        raise UserError(
            f"--{flag}={value}: use lower-case letters, digits and '-', with a letter first "
            "and no '-' last, 63 characters at most."
        )


def check_image(image: str) -> None:
    """Raises a `UserError` for what cannot be the name of an image."""
    if not image or re.search(r"\s", image):
        raise UserError(f"--image={image!r}: give the image as REGISTRY/NAME:TAG.")

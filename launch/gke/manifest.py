"""The manifest of a training job on GKE, filled in from its template."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from launch.gke.slices import Slice
from lumiere_jax.runtime.errors import UserError

DATA_FOLDER = "/data"
BUCKET_NAME = r"[a-z0-9][a-z0-9._-]+"
_TEMPLATE = Path(__file__).with_name("jobset.yaml.template")
_LABEL = r"[a-z]([a-z0-9-]*[a-z0-9])?"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job on GKE: a JobSet, in which every slice is a job and every host a pod."""

    name: str
    image: str  # of the container
    tpu_slice: Slice
    arguments: tuple[str, ...]  # of `lumiere_jax.main`
    compiled: str  # folder of compiled programs, in a bucket
    slices: int = 1
    spot: bool = False  # whether on Spot nodes
    namespace: str = "default"
    service_account: str = "default"  # Kubernetes' own, of the pods
    grace_seconds: int = 600  # from SIGTERM to SIGKILL
    max_restarts: int = 10  # after failures; preemptions do not count
    data_bucket: str | None = None  # mounted at `DATA_FOLDER`

    def manifest(self) -> str:
        """The YAML.

        Raises:
          UserError: if Kubernetes would refuse it.
        """
        _check(self)
        # JSON is YAML too, and quotes whatever needs it.
        values = {
            "name": self.name,
            "namespace": self.namespace,
            "image": self.image,
            "service_account": self.service_account,
            "slices": self.slices,
            "hosts": self.tpu_slice.hosts,
            "chips": self.tpu_slice.chips_per_host,
            "max_restarts": self.max_restarts,
            "grace": self.grace_seconds,
            "arguments": self.arguments,
            "compiled": self.compiled,
            **_nodes(self.tpu_slice, self.spot),
            **_data_volume(self.data_bucket),
        }
        template = Template(_TEMPLATE.read_text(encoding="utf-8"))
        return template.substitute(
            {key: json.dumps(value) for key, value in values.items()}, summary=_summary(self)
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


def _check(job: Job) -> None:
    for flag in ("name", "namespace", "service_account"):
        value = getattr(job, flag)
        if not re.fullmatch(_LABEL, value) or len(value) > 63:
            raise UserError(
                f"--{flag}={value}: use lower-case letters, digits and '-', with a letter first "
                "and no '-' last, 63 characters at most."
            )
    # Kubernetes names pods NAME-slice-SLICE-HOST-abcde, in 63 characters.
    longest = f"{job.name}-slice-{job.slices - 1}-{job.tpu_slice.hosts - 1}-abcde"
    if len(longest) > 63:
        raise UserError(f"--name={job.name}: it must be shorter by {len(longest) - 63} characters.")
    if not job.image or re.search(r"\s", job.image):
        raise UserError(f"--image={job.image!r}: give the image as REGISTRY/NAME:TAG.")
    if job.slices > 1 and job.tpu_slice.hosts == 1:
        raise UserError(
            f"--slices={job.slices}: GKE joins slices of several hosts only, and "
            f"{job.tpu_slice.topology} is one host; give a larger --topology."
        )


def _summary(job: Job) -> str:
    shape = job.tpu_slice
    return (
        f"{job.slices} x {shape.topology}, {job.slices * shape.hosts * shape.chips_per_host} chips:"
        f" each slice a node pool of {shape.hosts} nodes {shape.machine_type}."
    )

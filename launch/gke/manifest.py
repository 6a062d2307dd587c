"""The manifest of a training job on GKE, filled in from its template."""

import re
from dataclasses import dataclass

from launch.gke import pods
from launch.gke.slices import Slice
from lumiere_jax.runtime.errors import UserError

DATA_FOLDER = "/data"


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
            **pods.tpu_nodes(self.tpu_slice, self.spot),
            **pods.bucket_volume("data", self.data_bucket, DATA_FOLDER),
        }
        return pods.fill("jobset.yaml.template", values, summary=_summary(self))


def _check(job: Job) -> None:
    for flag in ("name", "namespace", "service_account"):
        pods.check_label(flag, getattr(job, flag))
    # Kubernetes names pods NAME-slice-SLICE-HOST-abcde, in 63 characters.
    longest = f"{job.name}-slice-{job.slices - 1}-{job.tpu_slice.hosts - 1}-abcde"
    if len(longest) > 63:
        raise UserError(f"--name={job.name}: it must be shorter by {len(longest) - 63} characters.")
    pods.check_image(job.image)
    if job.data_bucket is not None and not re.fullmatch(pods.BUCKET_NAME, job.data_bucket):
        raise UserError(
            f"--data_bucket={job.data_bucket}: give the name alone, without gs:// and folders."
        )
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

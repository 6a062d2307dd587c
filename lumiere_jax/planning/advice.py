"""What helps a step that needs more memory than a chip has."""

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.models.layers import REMAT_POLICIES
from lumiere_jax.planning.compile import Step
from lumiere_jax.runtime.sharding import batch_parts

_LARGE_SHARE = 0.25  # of the memory, from which on the state is worth splitting


def advise(config: ConfigDict, step: Step, mode: str, hbm: float | None) -> list[str]:
    """Changes that help, the most promising first.

    Args:
      config: of the step.
      step: that did not fit.
      mode: "train", "sample", "features" or "text".
      hbm: bytes a device has, or None.
    """
    if mode in ("features", "text"):
        return [f"take fewer {'clips' if mode == 'features' else 'prompts'} a device: --batches"]
    mesh, advice = step.mesh.shape, []
    state_is_large = hbm is not None and step.held > _LARGE_SHARE * hbm
    if mode == "train" and config.model.get("remat", "none") != "full":
        policies = ", ".join(REMAT_POLICIES)
        advice.append(f"recompute more: --config.model.remat=full (policies: {policies})")
    parts = batch_parts(step.mesh)
    if mode == "train" and step.batch > parts:
        advice.append(
            f"take fewer than {step.batch // parts} clips a device: "
            f"--config.train.batch_size={parts} at least"
        )
    if state_is_large:
        advice.append(
            f"split parameters and optimizer state, {step.held / 2**30:.1f} GiB a device, over "
            f"more devices: --config.mesh.fsdp={_next_split(mesh['fsdp'], parts)}"
        )
    if mode == "train" and step.frozen and config.train.get("frozen_dtype") == "float32":
        advice.append("keep frozen parameters in half: --config.train.frozen_dtype=bfloat16")
    advice.append(f"share a clip between more devices: --config.mesh.space={2 * mesh['space']}")
    if mode == "sample" and "ssr" in config and config.ssr.chunk > 1:
        advice.append("predict fewer windows at once: --config.ssr.chunk=1")
    return advice


def _next_split(fsdp: int, parts: int) -> int:
    """Four times the present split, or what else divides the devices of a batch."""
    larger = [n for n in range(fsdp + 1, parts + 1) if parts % n == 0 and n % fsdp == 0]
    return next((n for n in larger if n >= 4 * fsdp), larger[-1] if larger else fsdp)

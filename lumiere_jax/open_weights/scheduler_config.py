"""`scheduler/scheduler_config.json` of DeepFloyd IF as fields of `config`, and back."""

from pathlib import Path
from typing import Any

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.diffusion.discrete import NUM_TIMESTEPS, SPACINGS
from lumiere_jax.open_weights.json_fields import Fields

CLASS = "DDPMScheduler"

# What `DDPMScheduler` takes for a field that the file does not have.
_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "variance_type": "fixed_small", "clip_sample": True,
    "prediction_type": "epsilon", "thresholding": False, "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0, "sample_max_value": 1.0, "timestep_spacing": "leading",
    "steps_offset": 0, "rescale_betas_zero_snr": False,
}  # fmt: skip
_FIXED = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": NUM_TIMESTEPS}


def apply(path: Path, config: ConfigDict) -> None:
    """Sets the fields of `config.diffusion` and `config.sampling` that a file speaks of.

    A field or a value that is not supported is a `UserError`.
    """
    given = Fields(path, _DEFAULTS)
    for unused in ("beta_start", "beta_end", "clip_sample", "clip_sample_range"):
        given.take(unused)  # of other schedules, or what thresholding replaces
    given.choose("thresholding", True)
    given.choose("variance_type", "learned_range")
    config.diffusion.prediction = given.choose("prediction_type", "epsilon")
    config.diffusion.schedule = "discrete"
    config.diffusion.learned_variance = True
    config.sampling.sampler = "ddpm"
    config.sampling.timestep_spacing = given.choose("timestep_spacing", *SPACINGS)
    config.sampling.threshold_percentile = 100.0 * given.take("dynamic_thresholding_ratio")
    config.sampling.threshold_max = float(given.take("sample_max_value"))
    given.finish(_DEFAULTS | _FIXED)


def check_noising(path: Path) -> None:
    """Raises a `UserError` if a low-resolution image gets the noise of another schedule."""
    given = Fields(path, _DEFAULTS)
    given.choose("beta_schedule", _FIXED["beta_schedule"])
    given.choose("num_train_timesteps", NUM_TIMESTEPS)
    given.choose("trained_betas", None)
    given.choose("rescale_betas_zero_snr", False)


def describe(config: ConfigDict) -> dict[str, Any]:
    """The `scheduler_config.json` of a config with a learned variance."""
    sampling = config.sampling
    return {"_class_name": CLASS} | _DEFAULTS | _FIXED | {
        "variance_type": "learned_range",
        "prediction_type": "epsilon",
        "thresholding": True,
        "dynamic_thresholding_ratio": sampling.threshold_percentile / 100.0,
        "sample_max_value": sampling.threshold_max,
        "timestep_spacing": sampling.timestep_spacing,
    }  # fmt: skip


def describe_noising() -> dict[str, Any]:
    """The `image_noising_scheduler/scheduler_config.json` of the same schedule."""
    return {"_class_name": CLASS} | _DEFAULTS | _FIXED

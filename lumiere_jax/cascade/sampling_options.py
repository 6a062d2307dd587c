"""How to sample from a stage."""

import dataclasses

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.diffusion.samplers import SAMPLERS
from lumiere_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample from a stage.

    Attributes:
      sampler: "ddim", "ancestral" or "dpmpp_2m"; "ddpm" where the variance is learned.
      num_steps: calls of the network.
      time_power: what even times are raised to; above 1, more of the steps are near clean data
        (`CosineSchedule`).
      guidance_scale: classifier-free guidance; 1 is the conditional model.
      threshold_percentile: of dynamic thresholding.
      threshold_max: the most that it divides by; 0 for no limit, 1 clips to [-1, 1].
      eta: DDIM's share of fresh noise.
      strength: noise that is added to a video before it is denoised again (SDEdit, arXiv
        2108.01073), in (0, 1], as time of the cosine schedule without a shift, so that a number
        means the same noise for every model; 1 starts from noise alone.
      guidance_from: latest time, of [0, 1] where 1 is noise, at which there is guidance.
      guidance_to: earliest such time.
      overlap: frames that windows share, where a video is longer than what was trained; None for
        half a window.
    """

    sampler: str = "ddim"
    num_steps: int = 50
    time_power: float = 1.0
    guidance_scale: float = 4.0
    threshold_percentile: float = 99.5
    threshold_max: float = 0.0
    eta: float = 0.0
    strength: float = 1.0
    guidance_from: float = 1.0
    guidance_to: float = 0.0
    overlap: int | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
          UserError: naming the field that is out of range.
        """
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampler {self.sampler!r} is unknown; choose from {SAMPLERS}.")
        if self.num_steps < 1:
            raise UserError(f"steps={self.num_steps} must be 1 or more.")
        if not self.guidance_scale >= 0:
            raise UserError(f"guidance_scale={self.guidance_scale} must be 0 or more.")
        if not 0 < self.strength <= 1:
            raise UserError(f"strength={self.strength} must be above 0 and at most 1.")
        if not 0 <= self.guidance_to <= self.guidance_from <= 1:
            raise UserError(
                f"guidance from time {self.guidance_from} to {self.guidance_to}: times are in "
                "[0, 1], 1 is noise, and the first is not the smaller one."
            )
        if not 0 < self.threshold_percentile <= 100:
            raise UserError(f"threshold_percentile={self.threshold_percentile} is not in (0, 100].")
        if self.threshold_max and not self.threshold_max >= 1:
            raise UserError(f"threshold_max={self.threshold_max} must be 0 (none), or 1 or more.")

    @classmethod
    def from_config(cls, config: ConfigDict, **overrides: object) -> "SamplingOptions":
        """The options of `config.sampling`, with those overrides that are not None."""
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {k: v for k, v in config.sampling.items() if k in names}
        return cls(**{**fields, **{k: v for k, v in overrides.items() if v is not None}})

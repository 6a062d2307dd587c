"""How to sample from a stage: the one declaration of the options.

The flags of the commands, the fields of requests to a server and the arguments in Python derive
from it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import flags

from lumiere_jax.diffusion.guidance_names import GUIDANCES, GuidanceName
from lumiere_jax.diffusion.sampler_names import SAMPLERS, SamplerName
from lumiere_jax.diffusion.spacing import LARGEST_LOG_SNR, Spacing
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import Option, check, declared, define_flag, option

if TYPE_CHECKING:
    from lumiere_jax.cascade.config import ConfigDict

flags.disclaim_key_flags()  # see `define_sampling_flags`


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to sample from a stage.

    Times are in [0, 1]: 1 is noise, 0 is clean data. `strength` is a time of the cosine schedule
    without a shift, so that a number means the same noise for every model (SDEdit, arXiv
    2108.01073).

    Raises:
      UserError: naming the option that is out of range.
    """

    sampler: SamplerName = option(
        "ddim", "Sampler of every stage; ddpm is for stages that learn the variance.",
        choices=SAMPLERS,
    )  # fmt: skip
    num_steps: int = option(50, "Denoising steps of every stage.", name="steps", minimum=1)
    last_log_snr: float = option(
        0.0, "The base's steps are even in log-SNR, and this is the last one's; 10 leaves less "
        "noise than one grey level. 0: they are even in time.", minimum=0,
        maximum=LARGEST_LOG_SNR,
    )  # fmt: skip
    time_power: float = option(
        1.0, "Spacing of the base's steps: 1 is even, above 1 more steps are near clean data, "
        "2 is quadratic.", above=0, served_maximum=10,
    )  # fmt: skip
    guidance_scale: float = option(
        4.0, "Strength of the base stage's guidance; 1 is none.", minimum=0, served_maximum=100
    )
    guidance: GuidanceName = option(
        "cfg", "Method of guidance: classifier-free (cfg), adaptive projected (apg), which "
        "saturates less, or CFG-Zero* (cfg_zero).", choices=GUIDANCES,
    )  # fmt: skip
    guidance_parallel: float = option(
        0.0, "apg: the share that is kept of what changes contrast and saturation alone; 1 is all.",
        minimum=0, maximum=1,
    )  # fmt: skip
    guidance_limit: float = option(
        0.0, "apg: the largest root mean square of what guidance with scale 2 adds, for values in "
        "[-1, 1]; 0 for no limit.", minimum=0,
    )  # fmt: skip
    guidance_momentum: float = option(
        -0.5, "apg: weight of the steps before; a negative one moves away from them, 0 is none.",
        above=-1, maximum=0.9,
    )  # fmt: skip
    guidance_zero_until: float = option(
        0.96, "cfg_zero: samples stay as they are while this share of the steps, or more, is left; "
        "1 moves at once.", above=0, maximum=1,
    )  # fmt: skip
    threshold_percentile: float = option(
        99.5, "Percentile of dynamic thresholding.", above=0, maximum=100
    )
    threshold_max: float = option(
        0.0, "The most that dynamic thresholding divides by; 0 for no limit, 1 clips to [-1, 1].",
        minimum=0,
    )  # fmt: skip
    eta: float = option(0.0, "Share of fresh noise in each step of the sampler ddim.", minimum=0)
    strength: float = option(
        1.0, "Noise that is added to a video before it is denoised again; 1 starts from noise.",
        above=0, maximum=1,
    )  # fmt: skip
    guidance_from: float = option(
        1.0, "Guidance begins at this time: 1 is noise, 0 the video.", minimum=0, maximum=1
    )
    guidance_to: float = option(0.0, "Guidance ends at this time.", minimum=0, maximum=1)
    guidance_every: int = option(
        1, "Guidance asks the network without the text in every n-th of its steps; in those "
        "between, the last difference serves again.", minimum=1, served_maximum=100,
    )  # fmt: skip
    overlap: int | None = option(
        None, "Frames that neighbouring windows of a long video share; half a window if not given.",
        minimum=0,
    )  # fmt: skip

    def __post_init__(self):
        check(type(self), vars(self))
        if self.guidance_to > self.guidance_from:
            raise UserError(
                f"guidance from time {self.guidance_from} to {self.guidance_to}: 1 is noise and 0 "
                "the video, so the first must not be the smaller one."
            )
        if 0 < self.threshold_max < 1:
            raise UserError(f"threshold_max={self.threshold_max} must be 0 (none), or 1 or more.")
        if self.resting_steps >= self.num_steps:
            raise UserError(
                f"guidance_zero_until={self.guidance_zero_until} leaves none of steps="
                f"{self.num_steps} to move in, so that noise would stay noise; raise it, up to 1, "
                "or the number of steps."
            )

    @property
    def method(self) -> GuidanceName | None:
        """The guidance in use; None without any."""
        return None if self.guidance_scale == 1 else self.guidance

    @property
    def remembers(self) -> bool:
        """Whether guidance uses what the network said without the text in earlier steps."""
        return self.method is not None and self.guidance_every > 1

    @property
    def resting_steps(self) -> int:
        """First steps in which samples stay as they are.

        Whatever the spacing, a share of the steps counts: those even in log-SNR spend a third of
        them beyond time 0.96. A later start, by `strength`, has less of the way left.
        """
        if self.method != "cfg_zero" or self.guidance_zero_until == 1:
            return 0
        share = 1 - self.guidance_zero_until / self.strength
        return max(math.floor(self.num_steps * share + 1e-6) + 1, 0)

    @property
    def spacing(self) -> Spacing:
        """Of the base's steps."""
        return Spacing(self.time_power, self.last_log_snr)

    @classmethod
    def from_config(cls, config: "ConfigDict", **overrides: object) -> "SamplingOptions":
        """The options of `config.sampling`, with those overrides that are not None."""
        names = declared(cls)
        fields = {k: v for k, v in config.sampling.items() if k in names}
        return cls(**{**fields, **{k: v for k, v in overrides.items() if v is not None}})


def shared_options() -> Mapping[str, Option]:
    """Those that all commands and requests take; the strength belongs to one task."""
    return {field: o for field, o in declared(SamplingOptions).items() if field != "strength"}


def define_sampling_flags() -> dict[str, flags.FlagHolder]:
    """Defines a flag of the calling module for each shared option, by the names of the fields.

    A flag that is not given is None, for the config's own.
    """
    return {
        field: define_flag(
            o, default=None, help=o.help + ("" if o.default is None else " Default: the config's.")
        )
        for field, o in shared_options().items()
    }

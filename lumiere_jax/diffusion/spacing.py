"""How a sampler's steps are spread from noise to clean data; read by flags, so free of JAX."""

import math
from typing import TYPE_CHECKING, NamedTuple

from lumiere_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from jax import Array

LARGEST_LOG_SNR = 30.0
"""Beyond it, float32 does not tell noisy data from clean."""


class Spacing(NamedTuple):
    """Steps that are even in time, or even in log-SNR; both numbers may be traced.

    Even in log-SNR is what Karras et al. (arXiv 2206.00364, equation 5) come to with a large rho,
    and what DPM-Solver++ was made for (arXiv 2211.01095). A power above 1 moves steps towards clean
    data; in time, 2 is the quadratic spacing of DDIM (arXiv 2010.02502, appendix D.2).
    """

    power: "float | np.floating | Array" = 1.0
    """Of even positions, which are 1 at noise and 0 at clean data."""
    last_log_snr: "float | np.floating | Array" = 0.0
    """Log-SNR at which the last step begins, if they are even in it; 0: they are even in time."""

    def check(self) -> None:
        """Raises a `UserError` for numbers that are out of range; not for traced ones."""
        if not 0.0 < self.power < math.inf:
            raise UserError(
                f"sampling.time_power={self.power} must be above 0; 1 spaces a sampler's steps "
                "evenly, 2 has more of them near clean data."
            )
        if not 0.0 <= self.last_log_snr <= LARGEST_LOG_SNR:
            raise UserError(
                f"sampling.last_log_snr={self.last_log_snr} must be between 0 (steps are even in "
                f"time) and {LARGEST_LOG_SNR}; 10 leaves noise of less than one grey level."
            )

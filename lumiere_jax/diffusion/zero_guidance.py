"""CFG-Zero*: guidance with a null branch of the best length, and a start at rest (Fan et al.).

It is defined for the velocity `u = noise - x0` of flow matching, whose samples are
`(1 - t) x0 + t noise`. A sample `z = alpha x0 + sigma noise` is such a one times `alpha + sigma`,
at `t = sigma / (alpha + sigma)`, and a step of DDIM is a step of Euler's method along u. So
estimates of clean data are restated as u, whatever the network predicts; its v is another velocity.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lumiere_jax.diffusion.parameterization import expand_to
from lumiere_jax.diffusion.schedule import alpha_sigma

Clips = Float[Array, " batch *shape"]
Levels = Float[Array, " batch"]


def guide(conditional: Clips, null: Clips, z: Clips, log_snr: Levels, scale: Levels) -> Clips:
    """Guided estimates of clean data (arXiv 2503.18886).

    The null velocity is first multiplied by the number that brings it nearest to the conditional
    one, for each clip: `s = <u, u_null> / |u_null|²`. Then `s u_null + scale (u - s u_null)`.

    Args:
      conditional: estimate of clean data with the text.
      null: the one to be led away from.
      z: noisy clips that both are of.
      log_snr: their noise levels.
      scale: as in `guidance.guide`.
    """
    total, axes = _total(z, log_snr), tuple(range(1, z.ndim))
    # Velocities times sigma: the factor falls out, and nothing is divided by a vanishing sigma.
    velocity, away = z - total * conditional, z - total * null
    squared = jnp.sum(jnp.square(away), axes, keepdims=True)
    product = jnp.sum(velocity * away, axes, keepdims=True)
    away *= product / jnp.where(squared > 0, squared, 1.0)
    return (z - (away + expand_to(scale, z) * (velocity - away))) / total


def at_rest(z: Clips, log_snr: Levels) -> Clips:
    """The estimate of clean data that has no velocity: the zero-init of that paper."""
    return z / _total(z, log_snr)


def _total(z: Clips, log_snr: Levels) -> Array:
    alpha, sigma = alpha_sigma(expand_to(log_snr, z))
    return alpha + sigma

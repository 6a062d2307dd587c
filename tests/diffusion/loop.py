"""The loop over a sampler's steps as short as it can be; that of the pipeline knows stages."""

import jax
import jax.numpy as jnp

from lumiere_jax.diffusion import samplers
from lumiere_jax.diffusion.samplers import Estimate


def sample(
    denoise, keys, shape, *, schedule, num_steps, sampler="ddim", eta=None, noise=None,
    start_time=1.0, fraction=-1.0,
):  # fmt: skip
    """The samples after every step, `[num_steps, *shape]`; "ddpm" gets the posterior's variance."""

    def run(keys, noise):
        z = samplers.normal(keys, 0, shape) if noise is None else noise
        pair = samplers.create(sampler, eta)

        def advance(carry, step):
            x0 = denoise(carry[0], jnp.full(shape[:1], step.log_snr))
            estimate = Estimate(x0, jnp.full_like(x0, fraction))
            z, state = pair.step(*carry, estimate, step, keys)
            return (z, state), z

        steps = samplers.sampling_steps(schedule, num_steps, start_time)
        return jax.lax.scan(advance, (z, pair.init(z)), steps)[1]

    return jax.jit(run)(keys, noise)

"""The sampler of one stage: from noise to clips, compiled once."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Shaped

from lumiere_jax.cascade.denoising import Denoiser, Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion import samplers
from lumiere_jax.diffusion.parameterization import add_noise
from lumiere_jax.diffusion.samplers import Step
from lumiere_jax.diffusion.schedule import with_time_power
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import by_clip, replicated, sampling_mesh, use_mesh

OnStep = Callable[[], None]
OnEstimate = Callable[[Any, Any], None]
"""Takes arrays, of JAX or NumPy: a log-SNR, and some frames `[batch, time, height, width, 3]`."""


def start_time(stage: Stage, strength: float) -> float:
    """The time at which a stage's schedule has the noise of `SamplingOptions.strength`."""
    if strength == 1:
        return 1.0
    log_snr = -2 * math.log(math.tan(math.pi / 2 * strength))
    return min(max(float(stage.schedule.time(log_snr)), 1e-6), 1.0)


def sample_keys(seeds: Sequence[int] | Array, stage_index: int) -> Shaped[Array, " batch"]:
    """One PRNG key for each sample, from its seed and the stage's place in the cascade."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    return jax.vmap(jax.random.fold_in, (0, None))(keys, stage_index)


class StageSampler:
    """Samples clips of one stage; compiled once for each size of a batch and each mesh.

    `program(params, inputs)` is `sample` compiled, on whatever mesh is in use.
    """

    def __init__(self, stage: Stage, options: SamplingOptions, num_frames: int | None = None):
        """Compiles nothing yet.

        `num_frames` are those of a clip; more than were trained are made by MultiDiffusion. None
        for as many as were trained; super-resolution makes as many as it is given.
        """
        self._stage, self._options = stage, options
        self._num_frames = num_frames or stage.config.data.num_frames
        self._schedule = with_time_power(stage.schedule, options.time_power)
        self._start = start_time(stage, options.strength)
        self._on_step: OnStep | None = None
        self._on_estimate: OnEstimate | None = None
        stage.null_text()  # computed before anything is traced
        self.program = jax.jit(self.sample, static_argnames=("tells_steps", "tells_estimates"))

    def __call__(
        self,
        params: Params,
        inputs: Inputs,
        mesh: Mesh | None = None,
        *,
        on_step: OnStep | None = None,
        on_estimate: OnEstimate | None = None,
    ) -> Float[Array, "batch time height width 3"]:
        """Samples a batch of clips in [-1, 1], split over devices; returns when they are done.

        Args:
          params: of the stage; on `mesh`, if one is given.
          inputs: equal on all processes.
          mesh: one whose "data" and "fsdp" divide the batch; None: as many devices of this process
            as the batch and the clips can keep busy.
          on_step: called on the host at every step, to show progress; if it raises, this ends.
          on_estimate: called on the host at every step, in any order, with its log-SNR and some
            frames of the estimated clean clips; likewise.

        Raises:
          UserError: if the options do not fit the stage or the inputs.
        """
        frames = self._frames(inputs)
        if mesh is None:
            mesh = sampling_mesh(
                len(inputs.text), lambda parts: self._stage.splits_into(parts, frames)
            )
            params = jax.device_put(params, replicated(mesh))
        clips = by_clip(mesh)
        inputs = jax.tree.map(lambda x: _placed(x, clips), inputs)
        tells = {"tells_steps": on_step is not None, "tells_estimates": on_estimate is not None}
        self._on_step, self._on_estimate = on_step, on_estimate
        try:
            with use_mesh(mesh, "windows" if self._stage.is_super_resolution else "height"):
                video = jax.block_until_ready(self.program(params, inputs, **tells))
            jax.effects_barrier()  # for the last line of progress
        finally:
            self._on_step = self._on_estimate = None
        return video

    def sample(
        self,
        params: Params,
        inputs: Inputs,
        *,
        tells_steps: bool = False,
        tells_estimates: bool = False,
    ) -> Float[Array, "batch time height width 3"]:
        """The loop from noise to clips, to be traced: one step is compiled for all noise levels.

        It calls `on_step` if it `tells_steps`, and `on_estimate` if it `tells_estimates`.
        """
        shape, options = self._shape(inputs), self._options
        denoiser = Denoiser.for_inputs(self._stage, options, params, inputs, shape[1])
        sampler = samplers.create(options.sampler, options.eta)
        steps = samplers.sampling_steps(self._schedule, options.num_steps, self._start)
        z = samplers.normal(inputs.keys, 0, shape)
        if inputs.initial is not None:
            z = add_noise(jnp.asarray(inputs.initial), z, steps.log_snr[0])
        elif options.strength < 1:
            raise UserError(
                f"strength={options.strength} needs an initial video; use 1 to start from noise."
            )

        def advance(carry: tuple, step: Step) -> tuple[tuple, None]:
            z, state = carry
            log_snr = jnp.full(shape[0], step.log_snr)
            if tells_steps:
                jax.debug.callback(self._tell_step, log_snr)
            estimate = denoiser(z, log_snr)
            if tells_estimates:
                shown = estimate.x0[:, :: max(shape[1] // 4, 1)]
                jax.debug.callback(self._tell_estimate, log_snr[0], shown)
            return sampler.step(z, state, estimate, step, inputs.keys), None

        (z, _), _ = jax.lax.scan(advance, (z, sampler.init(z)), steps)
        return z

    def _frames(self, inputs: Inputs) -> int:
        return self._num_frames if inputs.video is None else int(inputs.video.shape[1])

    def _shape(self, inputs: Inputs) -> tuple[int, int, int, int, int]:
        """Of the clips: the base's own size, or that of the refined ones."""
        config = self._stage.config
        height = width = config.data.resolution
        if inputs.video is not None:
            height, width = (self._stage.ssr.factor * size for size in inputs.video.shape[2:4])
        return inputs.text.shape[0], self._frames(inputs), height, width, 3

    def _tell_step(self, log_snr: Array) -> None:
        if self._on_step is not None:
            self._on_step()

    def _tell_estimate(self, log_snr: Array, frames: Array) -> None:
        if self._on_estimate is not None:
            self._on_estimate(log_snr, frames)


def _placed(x: Array | np.ndarray, sharding: NamedSharding) -> Array:
    """Puts an array, also of PRNG keys, on a mesh that may reach beyond this process."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(x), sharding))
    is_here = not isinstance(x, Array) or x.is_fully_addressable
    return jax.device_put(np.asarray(x) if is_here else x, sharding)

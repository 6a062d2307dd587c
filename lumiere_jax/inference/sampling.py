"""The sampler of one stage: from noise to clips, by programs that are compiled once.

Options that are only numbers are arguments of the programs, so that a new one compiles nothing, and
neither does a new number of steps: one step is a program.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Shaped

from lumiere_jax.cascade.denoising import (
    VIDEO,
    Denoiser,
    Given,
    Guiding,
    Inputs,
    Numbers,
    WithGuide,
    for_network,
)
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.diffusion import samplers
from lumiere_jax.diffusion.parameterization import add_noise
from lumiere_jax.diffusion.samplers import Keys, Sampler, Step
from lumiere_jax.diffusion.schedule import Schedule, with_spacing
from lumiere_jax.diffusion.spacing import Spacing
from lumiere_jax.models.layers import constrain
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import by_clip, placed, replicated, sampling_mesh, use_mesh

Carry = tuple[Float[Array, "batch time height width 3"], tuple[Any, Guiding]]
"""The noisy clips, and the states of the sampler and of guidance."""

OnStep = Callable[[], None]
OnEstimate = Callable[[Any, Any], None]
"""Takes arrays, of JAX or NumPy: a log-SNR, and some frames `[batch, time, height, width, 3]`."""


def start_log_snr(strength: float) -> float:
    """The noise of `SamplingOptions.strength`; all of it is minus infinity."""
    return -math.inf if strength == 1 else -2 * math.log(math.tan(math.pi / 2 * strength))


def sample_keys(seeds: Sequence[int] | Array, stage_index: ArrayLike) -> Shaped[Array, " batch"]:
    """One PRNG key for each sample, from its seed and the stage's place in the cascade."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    return jax.vmap(jax.random.fold_in, (0, None))(keys, stage_index)


def raw_sample_keys(seeds: Array, stage_index: ArrayLike) -> Keys:
    """The data of `sample_keys`, which serves as well."""
    return jax.random.key_data(sample_keys(seeds, stage_index))


class StageSampler:
    """Samples clips of one stage.

    `program(params, inputs)` is `sample` compiled as a whole, on whatever mesh is in use.
    """

    def __init__(
        self,
        stage: Stage,
        options: SamplingOptions,
        num_frames: int | None = None,
        programs: Programs | None = None,
    ):
        """Compiles nothing yet.

        Args:
          stage: whose clips.
          options: how to sample.
          num_frames: of a clip; more than were trained are made by MultiDiffusion. None for as many
            as were trained; super-resolution makes as many as it is given.
          programs: where compiled ones are found and kept; samplers that share them differ in
            whatever they like.
        """
        with_spacing(stage.schedule, options.spacing)  # checks it
        self._stage, self._options = stage, options
        self._num_frames = num_frames or stage.config.data.num_frames
        self._programs = Programs() if programs is None else programs
        stage.null_text()  # computed before anything is traced
        self.program = jax.jit(self.sample)

    def __call__(
        self,
        params: Params | WithGuide,
        inputs: Inputs,
        mesh: Mesh | None = None,
        *,
        rows: Sequence[SamplingOptions] = (),
        on_step: OnStep | None = None,
        on_estimate: OnEstimate | None = None,
        on_compile: Callable[[], None] | None = None,
    ) -> Float[Array, "batch time height width 3"]:
        """Samples a batch of clips in [-1, 1], split over devices; returns when they are done.

        Args:
          params: of the stage, and of what guides it; on `mesh`, if one is given.
          inputs: equal on all processes.
          mesh: one whose "data" and "fsdp" divide the batch; None: as many devices of this process
            as the batch and the clips can keep busy.
          rows: the options of each clip, if they differ: in what is only a number.
          on_step: called after every step, to show progress; if it raises, this ends.
          on_estimate: called after every step with its log-SNR and some frames of the estimated
            clean clips; likewise.
          on_compile: called before anything is compiled, which may take minutes.

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
        inputs = jax.tree.map(lambda x: _placed(x, clips), self._with_null_text(inputs))
        rows = rows or [self._options] * len(inputs.text)
        for options in rows:
            self._check(inputs, options)
        steps, times = self._steps_of(rows)
        log_snrs = np.stack([step.log_snr for step in steps], axis=1)  # of each row
        clip = self._shape(inputs)[1:]
        numbers = _stacked([Numbers.of(*row, clip) for row in zip(rows, log_snrs, strict=True)])
        asked = _asked(times, numbers, self._options.guidance_every, np)
        with use_mesh(mesh, "windows" if self._stage.is_super_resolution else "height"):
            return self._run(
                params, inputs, numbers, list(zip(steps, asked.tolist(), strict=True)),
                on_step, on_estimate, on_compile,
            )  # fmt: skip

    def sample(
        self, params: Params | WithGuide, inputs: Inputs
    ) -> Float[Array, "batch time height width 3"]:
        """From noise to clips as one program, to be traced; a call does the same step by step."""
        options = self._options
        self._check(inputs, options)
        start = start_log_snr(options.strength)
        steps, times = _steps(self._stage.schedule, options.num_steps, start, options.spacing)
        numbers = Numbers.of(options, steps.log_snr)
        given, carry = self._begin(inputs, steps.log_snr[0])
        asks, alone = (
            functools.partial(step, params, given, numbers)
            for step in (self._advance, self._advance_alone)
        )

        def advance(carry: Carry, at: tuple[Step, Bool[Array, ""]]) -> tuple[Carry, None]:
            step, is_asked = at
            if not options.remembers:  # a network more in the program is worse than a call more
                return asks(carry, step)[0], None
            return jax.lax.cond(is_asked, asks, alone, carry, step)[0], None

        asked = jnp.asarray(_asked(times[:, None], numbers, options.guidance_every, jnp))
        return jax.lax.scan(advance, carry, (steps, asked))[0][0]

    def _run(
        self,
        params: Params | WithGuide,
        inputs: Inputs,
        numbers: Numbers,
        steps: Sequence[tuple[Step, bool]],
        on_step: OnStep | None,
        on_estimate: OnEstimate | None,
        on_compile: Callable[[], None] | None,
    ) -> Float[Array, "batch time height width 3"]:
        """All steps, one after the other; a device has the next one before the last is told.

        Of each it is known whether the network is asked without the text; if not, the step is
        another program, of half the work.
        """
        about = self._about(inputs)
        get = functools.partial(self._programs.get, on_compile=on_compile)
        first = inputs, steps[0][0].log_snr
        given, carry = get(self._begin, first, about)(*first)
        places = jax.tree.map(lambda x: x.sharding, carry)
        arguments = params, given, numbers, carry, steps[0][0]
        advance = {
            is_asked: get(
                self._advance if is_asked else self._advance_alone, arguments,
                about if is_asked else f"{about} alone",
                donate_argnums=3, out_shardings=(places, None),
            )
            for is_asked in {is_asked for _, is_asked in steps}
        }  # fmt: skip
        begun: list[tuple[Any, Array]] = []
        try:
            for step, is_asked in steps:
                carry, shown = advance[is_asked](params, given, numbers, carry, step)
                begun.append((step.log_snr[0], shown))
                if len(begun) > 1:
                    _tell(*begun.pop(0), on_step, on_estimate)
            _tell(*begun.pop(), on_step, on_estimate)
        finally:
            jax.block_until_ready(carry)
        return carry[0]

    def _begin(self, inputs: Inputs, log_snr: Array) -> tuple[Given, Carry]:
        """What all steps are given, and what the first one starts from."""
        z = samplers.normal(jnp.asarray(inputs.keys), 0, self._shape(inputs))
        if inputs.initial is not None:
            z = add_noise(jnp.asarray(inputs.initial), z, log_snr)
        z = constrain(z, *VIDEO)
        states = self._sampler(None).init(z), Guiding.before(self._options, z)
        return for_network(self._stage, inputs), (z, states)

    def _advance(
        self, params: Params | WithGuide, given: Given, numbers: Numbers, carry: Carry, step: Step,
        is_asked: bool = True,
    ) -> tuple[Carry, Float[Array, "batch shown height width 3"]]:  # fmt: skip
        """One step, and some frames of what is estimated at it."""
        z, (state, guiding) = carry
        frames, options = z.shape[1], self._options
        denoiser = Denoiser.for_steps(self._stage, options, numbers, params, given, frames)
        log_snr = jnp.full(z.shape[0], step.log_snr)
        estimate, guiding = denoiser.step(z, log_snr, guiding, is_asked)
        z, state = self._sampler(numbers.eta).step(z, state, estimate, step, given.keys)
        return (z, (state, guiding)), estimate.x0[:, :: max(frames // 4, 1)]

    def _advance_alone(
        self, params: Params | WithGuide, given: Given, numbers: Numbers, carry: Carry, step: Step
    ) -> tuple[Carry, Float[Array, "batch shown height width 3"]]:
        """The same without asking the network without the text."""
        return self._advance(params, given, numbers, carry, step, is_asked=False)

    def _sampler(self, eta: ArrayLike | None) -> Sampler:
        return samplers.create(self._options.sampler, eta)

    def _steps_of(
        self, rows: Sequence[SamplingOptions]
    ) -> tuple[list[Step], Float[np.ndarray, "steps batch"]]:
        """The steps, on the host, with the levels of each clip, and the times of those."""
        schedule, count = self._stage.schedule, self._options.num_steps
        table = functools.partial(_steps, schedule, count)
        tables, times = [], []
        for row in rows:
            spacing = Spacing(*map(np.float32, row.spacing))
            numbers = np.float32(start_log_snr(row.strength)), spacing
            program = self._programs.get(table, numbers, f"steps {count} {schedule}")
            steps_of_row, times_of_row = program(*numbers)
            tables.append(list(zip(*map(np.asarray, steps_of_row), strict=True)))
            times.append(np.asarray(times_of_row))
        steps = [_stacked([Step(*step) for step in steps]) for steps in zip(*tables, strict=True)]
        return [step._replace(number=step.number[0]) for step in steps], np.stack(times, axis=1)

    def _about(self, inputs: Inputs) -> str:
        """What the programs depend on beside their arguments; see `Programs.get`."""
        stage, options = self._stage, self._options
        config = json.dumps(stage.config.to_dict(), sort_keys=True, default=str)
        shape = self._shape(inputs)
        chosen = options.sampler, options.method, options.overlap, options.remembers
        return repr((type(stage), stage.network, config, chosen, shape))

    def _check(self, inputs: Inputs, options: SamplingOptions) -> None:
        if program_of(options) != program_of(self._options):
            raise UserError(
                f"{options} and {self._options} are other programs; sample them one by one."
            )
        if options.strength < 1 and inputs.initial is None:
            raise UserError(
                f"strength={options.strength} needs an initial video; use 1 to start from noise."
            )

    def _with_null_text(self, inputs: Inputs) -> Inputs:
        """No text is an argument as well, like a negative prompt."""
        if inputs.null_text is not None:
            return inputs
        text, mask = self._stage.null_text()
        return inputs._replace(
            null_text=np.broadcast_to(text, inputs.text.shape),
            null_mask=np.broadcast_to(mask, inputs.text_mask.shape),
        )

    def _frames(self, inputs: Inputs) -> int:
        return self._num_frames if inputs.video is None else int(inputs.video.shape[1])

    def _shape(self, inputs: Inputs) -> tuple[int, int, int, int, int]:
        """Of the clips: the base's own size, or that of the refined ones."""
        config = self._stage.config
        height = width = config.data.resolution
        if inputs.video is not None:
            height, width = (self._stage.ssr.factor * size for size in inputs.video.shape[2:4])
        return inputs.text.shape[0], self._frames(inputs), height, width, 3


def _tell(
    log_snr: Any, shown: Array, on_step: OnStep | None, on_estimate: OnEstimate | None
) -> None:
    """Waits for a step, if anyone wants to know of it."""
    if on_step is not None or on_estimate is not None:
        jax.block_until_ready(shown)
    if on_step is not None:
        on_step()
    if on_estimate is not None:
        on_estimate(log_snr, shown)


def program_of(options: SamplingOptions) -> tuple:
    """What clips that are sampled together must have in common."""
    every = options.guidance_every if options.remembers else 1
    return (
        options.sampler, options.num_steps, options.overlap, options.method, options.eta > 0, every,
    )  # fmt: skip


def predictions(schedule: Schedule, options: SamplingOptions) -> int:
    """How many the network makes for one clip: two in a step in which guidance asks for both."""
    steps, times = _steps(
        schedule, options.num_steps, start_log_snr(options.strength), options.spacing
    )
    numbers = Numbers.of(options, steps.log_snr)
    asked = _asked(np.asarray(times)[:, None], numbers, options.guidance_every, np)
    return options.num_steps + (int(asked.sum()) if options.method else 0)


def _stacked(rows: Sequence[Any]) -> Any:
    """Numbers of each clip, along the axis of the batch."""
    return jax.tree.map(lambda *values: np.stack(values), *rows)


def _steps(
    schedule: Schedule, num_steps: int, start_log_snr: ArrayLike, spacing: Spacing
) -> tuple[Step, Float[Array, " steps"]]:
    """All steps from a noise level on, and the times at which they begin."""
    start = jnp.clip(schedule.time(start_log_snr), 1e-6, 1.0)
    start = jnp.where(jnp.isneginf(start_log_snr), 1.0, start)
    steps = samplers.sampling_steps(schedule, num_steps, start, spacing)
    return steps, schedule.time(steps.log_snr)


def _asked(
    times: Float[Array | np.ndarray, "steps batch"], numbers: Numbers, every: int, xp: ModuleType
) -> Bool[Array | np.ndarray, " steps"]:
    """In which steps the network is asked without the text.

    That is every so many of those in which a clip is guided (arXiv 2404.07724), the first of them
    included; all, if there is no guidance, where it makes no difference. `xp` is numpy or its like.
    """
    if numbers.guidance_scale is None:
        return xp.ones(len(times), bool)
    is_guided = (times <= numbers.guidance_from) & (times >= numbers.guidance_to)
    is_guided = xp.any(is_guided, axis=1)
    return is_guided & ((xp.cumsum(is_guided) - 1) % every == 0)


def _placed(x: Array | np.ndarray, sharding: NamedSharding) -> Array:
    """Puts an array, also of PRNG keys, on a mesh that may reach beyond this process."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(x), sharding))
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    is_here = not isinstance(x, jax.Array) or x.is_fully_addressable
    return placed(np.asarray(x), sharding) if is_here else jax.device_put(x, sharding)

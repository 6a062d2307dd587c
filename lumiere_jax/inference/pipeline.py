"""The cascade as one Python object: from prompts to videos."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lumiere_jax.cascade.config import check_frames
from lumiere_jax.cascade.denoising import Inputs, WithGuide
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference import style
from lumiere_jax.inference.editing import Editing
from lumiere_jax.inference.pretrained import Pretrained
from lumiere_jax.inference.sampling import OnEstimate, StageSampler, raw_sample_keys
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.sharding import gather, padded_batch

SHARED_OPTIONS = ("num_steps", "sampler")
"""Options of sampling that are those of every stage."""

Videos = Float[np.ndarray, "batch time height width 3"]


@runtime_checkable
class Listener(Protocol):
    """Follows how far a pipeline is; a method that raises ends its work."""

    def start(self, label: str, num_steps: int) -> None:
        """A stage begins."""

    def compiling(self) -> None:
        """Before its first step the stage compiles, which may take minutes."""

    def advance(self) -> None:
        """A step of the stage is done."""


class _Printer:
    """Prints progress to stderr, or nothing."""

    def __init__(self, is_quiet: bool):
        self._is_quiet = is_quiet

    def start(self, label: str, num_steps: int) -> None:
        self._progress = Progress(label, num_steps, "steps", quiet=self._is_quiet)
        self._is_told = self._is_quiet

    def compiling(self) -> None:
        if not self._is_told:
            self._progress.announce("compiling, this can take minutes")
            self._is_told = True

    def advance(self) -> None:
        self._progress.advance()


class LumierePipeline(Editing, Pretrained):
    """Text to video: a base stage, then any number of super-resolution stages.

    `programs` are the compiled ones, which pipelines may share.
    """

    def __init__(
        self,
        base: tuple[Stage, Params],
        super_resolution: Sequence[tuple[Stage, Params]] = (),
        *,
        guide: Params | None = None,
        show_progress: bool = True,
        mesh: Mesh | None = None,
        programs: Programs | None = None,
    ):
        """Puts stages together.

        Args:
          base: the base stage, "stunet" (or "t2i" for single images), with its parameters.
          super_resolution: the stages that follow, each with its parameters.
          guide: parameters of a weaker base of the same kind, whose prediction guidance leads away
            from (autoguidance); None: that without the prompt.
          show_progress: whether progress is printed to stderr, where nobody else listens.
          mesh: where to compute, with parameters that are on it already; None: whatever suits
            each batch.
          programs: where compiled ones are found and kept; None: in memory, all of them.

        Raises:
          UserError: if a stage is not of the kind that its place asks for.
        """
        if base[0].is_super_resolution:
            raise UserError(
                f"the base checkpoint is of stage {base[0].name!r}, which refines a video; give "
                "one of stage 'stunet' (or 't2i')."
            )
        for stage, _ in super_resolution:
            if not stage.is_super_resolution:
                raise UserError(
                    f"a super-resolution checkpoint is of stage {stage.name!r}; give one of stage "
                    "'ssr'."
                )
        self.base, self.super_resolution, self.guide = base, list(super_resolution), guide
        self.show_progress = show_progress
        self._mesh = mesh
        self.programs = Programs() if programs is None else programs

    def with_style(self, workdir: str | Path, alpha: float) -> "LumierePipeline":
        """A pipeline whose base makes images in a style, see `style.interpolate`.

        It shares compiled programs with this one. `workdir` is of a run of the stage "style", and
        `alpha` the share of its weights, in [0, 1].

        Raises:
          UserError: if the checkpoint is of another stage or network, or alpha out of range.
        """
        stage, params = self.base
        styled = style.interpolate(stage.config, params, workdir, alpha, self._mesh)
        if self._mesh is not None:
            styled = jax.device_put(styled, jax.tree.map(lambda leaf: leaf.sharding, params))
        return LumierePipeline(
            (stage, styled), self.super_resolution, guide=self.guide,
            show_progress=self.show_progress, mesh=self._mesh, programs=self.programs,
        )  # fmt: skip

    def fingerprints(self) -> list[str]:
        """Which weights each stage has, and last the guide; see `checkpoint.fingerprint`."""
        found = [params for _, params in (self.base, *self.super_resolution)]
        found += [] if self.guide is None else [self.guide]
        return [checkpoint.fingerprint(params) for params in found]

    @property
    def fps(self) -> float:
        """Frames per second of the videos it makes."""
        return self.base[0].config.data.fps

    @property
    def side(self) -> int:
        """Height and width in pixels of the videos it makes."""
        factors = [
            stage.config.ssr.factor if stage.config.ssr else 1 for stage, _ in self.super_resolution
        ]
        return self.base[0].config.data.resolution * math.prod(factors)

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        negative_prompt: str = "",
        num_frames: int | None = None,
        known: tuple[np.ndarray, np.ndarray] | None = None,
        initial: np.ndarray | None = None,
        base_only: bool = False,
        batch_size: int = 8,
        finish: Callable[[Videos], Videos] | None = None,
        on_batch: Callable[[int, Videos], None] | None = None,
        on_estimate: OnEstimate | None = None,
        listener: Listener | None = None,
        each: Sequence[Mapping[str, float]] | None = None,
        base_steps: int | None = None,
        **options: Any,
    ) -> Videos:
        """Makes a video for each prompt, in [-1, 1]; equal prompts and seeds give equal videos.

        Args:
          prompts: what to show.
          seeds: one for each prompt; 0, 1, … if None.
          negative_prompt: what guidance avoids, in place of no text.
          num_frames: frames of the video; None for what the base was trained on. More than that
            are made by temporal MultiDiffusion.
          known: of a conditional base, a video `[N, time, height, width, 3]` in [-1, 1] at its size
            and the mask `[N, time, height, width, 1]` of its known pixels; N prompts or 1.
          initial: videos like the known ones, that are noised by `strength` and denoised again.
          base_only: leaves super-resolution out.
          batch_size: videos made at once.
          finish: what is done to the videos of each batch, after the base and in the end.
          on_batch: called with the number of the first prompt and the videos of each batch, as
            soon as they are done; it may raise to end the work.
          on_estimate: called at every step of the base, in any order, with the log-SNR and some
            frames of what it estimates.
          listener: is told of stages and their steps; None: they are printed if `show_progress`.
          each: for each prompt, those of `options` that are its own; numbers alone may differ.
          base_steps: of the base alone, in place of `num_steps`.
          **options: `num_steps` and `sampler` of every stage, `guidance_scale` and the other fields
            of `SamplingOptions` of the base alone; None for the config's own.

        Raises:
          UserError: for an option, prompt or frame count that cannot be used.
        """
        prompts, seeds = self._checked_prompts(prompts, seeds)
        frames, stage = self.checked_frames(num_frames), self.base[0]
        of_base = options | {"num_steps": base_steps or options.get("num_steps")}
        chosen = [
            SamplingOptions.from_config(stage.config, **of_base | dict(own))
            for own, _ in zip(each or [{}] * len(prompts), prompts, strict=True)
        ]
        sampler = StageSampler(stage, chosen[0], frames, self.programs)
        given = self._given(len(prompts), frames, negative_prompt, known, initial)
        asked = _Asked(prompts, seeds, chosen, given)
        listener = listener or _Printer(is_quiet=not self.show_progress)
        refines, videos = bool(self.super_resolution) and not base_only, []
        for begin, rows in self._batches(len(prompts), batch_size):
            batch = asked.of(rows)
            listener.start("base", chosen[0].num_steps)
            video = self._base_videos(sampler, batch, listener, on_estimate)
            if refines:
                video = video if finish is None else finish(gather(video))
                shared = options | {"listener": listener}
                video = self.refine_all(video, batch.prompts, batch.seeds, shared)
            made = gather(video, len(prompts) - begin)
            videos.append(made if finish is None else finish(made))
            if on_batch is not None:
                on_batch(begin, videos[-1])
        return np.concatenate(videos)

    @staticmethod
    def _checked_prompts(
        prompts: Sequence[str], seeds: Sequence[int] | None
    ) -> tuple[list[str], list[int]]:
        """Prompts and a seed for each."""
        prompts = list(prompts)
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if not prompts or len(seeds) != len(prompts):
            raise UserError(f"{len(prompts)} prompts with {len(seeds)} seeds: give one seed each.")
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise UserError(f"seeds must be in [0, 2^32); got {min(seeds)} to {max(seeds)}.")
        return prompts, seeds

    def _batches(self, count: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """The first prompt of each batch of at most a size, or what a mesh takes, and its prompts.

        The last is filled up with the last prompt, so that there is one compilation for all.
        """
        size = min(size, count)
        size = size if self._mesh is None else padded_batch(size, self._mesh)
        for begin in range(0, count, size):
            yield begin, np.minimum(np.arange(begin, begin + size), count - 1)

    def _base_videos(
        self,
        sampler: StageSampler,
        asked: "_Asked",
        listener: Listener,
        on_estimate: OnEstimate | None,
    ) -> Array | Videos:
        """What the base makes of a batch."""
        stage, params = self.base
        text, mask = stage.text_encoder(asked.prompts)
        inputs = Inputs(text, mask, self._keys(asked.seeds, 0), **asked.given)
        weights = params if self.guide is None else WithGuide(params, self.guide)
        return sampler(
            weights, inputs, self._mesh, rows=asked.options, on_step=listener.advance,
            on_estimate=on_estimate, on_compile=listener.compiling,
        )  # fmt: skip

    def checked_frames(self, num_frames: int | None) -> int:
        """Frames of a video; `UserError` for a number that the base does not make."""
        stage = self.base[0]
        frames = stage.config.data.num_frames if num_frames is None else num_frames
        check_frames(stage.config, frames)
        return frames

    def refine_all(
        self,
        video: Array | Videos,
        prompts: Sequence[str],
        seeds: Sequence[int],
        options: dict[str, Any],
    ) -> Array | Videos:
        """Runs all super-resolution stages, see `refine`; `options` are those of `__call__`."""
        shared = {name: options.get(name) for name in (*SHARED_OPTIONS, "listener")}
        for index in range(len(self.super_resolution)):
            video = self.refine(video, prompts, seeds, index, **shared)
        return video

    def refine(
        self,
        video: Float[Array | np.ndarray, "batch time height width 3"],
        prompts: Sequence[str],
        seeds: Sequence[int],
        index: int = 0,
        *,
        num_steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        listener: Listener | None = None,
    ) -> Float[Array, "batch time large_height large_width 3"]:
        """Makes videos in [-1, 1], of any number of frames, `stage.ssr.factor` times as large.

        Runs the super-resolution stage number `index`, with a prompt and a seed for each video.
        Options that are None are the config's own; for `listener` see `__call__`.
        """
        stage, params = self.super_resolution[index]
        options = SamplingOptions.from_config(
            stage.config, num_steps=num_steps, sampler=sampler, guidance_scale=guidance_scale
        )
        text, mask = stage.text_encoder(list(prompts))
        inputs = Inputs(text, mask, self._keys(seeds, 1 + index), video=video)
        listener = listener or _Printer(is_quiet=not self.show_progress)
        listener.start(f"super-resolution {index + 1}", options.num_steps)
        return StageSampler(stage, options, programs=self.programs)(
            params, inputs, self._mesh, on_step=listener.advance, on_compile=listener.compiling
        )

    def _keys(self, seeds: Sequence[int], stage_index: int) -> Array:
        """Raw ones of `sample_keys`, by a program that is kept like the others."""
        arguments = np.asarray(seeds, np.uint32), np.int32(stage_index)
        return self.programs.get(raw_sample_keys, arguments, "keys")(*arguments)

    def _given(
        self,
        count: int,
        frames: int,
        negative_prompt: str,
        known: tuple[np.ndarray, np.ndarray] | None,
        initial: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Fields of `Inputs` of the base beside text and keys, checked, for all prompts."""
        stage, given = self.base[0], {}
        size = stage.config.data.resolution
        shape = (count, frames, size, size)
        if known is not None and not stage.is_conditional:
            raise UserError(
                f"the base checkpoint is of stage {stage.name!r}, which cannot be shown pixels; "
                "give one of stage 'stunet_conditional'."
            )
        if stage.is_conditional:
            video, mask = known or (np.zeros((*shape, 3)), np.zeros((*shape, 1)))
            video, mask = (np.asarray(x, np.float32) for x in (video, mask))
            given["known"] = _for_all(np.concatenate([video * mask, mask], -1), shape, "known")
        if initial is not None:
            given["initial"] = _for_all(np.asarray(initial, np.float32), shape, "initial")
        if negative_prompt and self.guide is not None:
            raise UserError(
                "a negative prompt has no place where another network guides; leave one of the two "
                "out."
            )
        if negative_prompt:
            text, text_mask = stage.text_encoder([negative_prompt])
            given["null_text"] = np.repeat(text, count, 0)
            given["null_mask"] = np.repeat(text_mask, count, 0)
        return given


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is asked for, one row for each video."""

    prompts: list[str]
    seeds: list[int]
    options: list[SamplingOptions]
    given: Mapping[str, np.ndarray]  # further fields of `Inputs`

    def of(self, rows: np.ndarray) -> "_Asked":
        """Some of the rows."""
        return _Asked(
            [self.prompts[row] for row in rows],
            [self.seeds[row] for row in rows],
            [self.options[row] for row in rows],
            {name: x[rows] for name, x in self.given.items()},
        )


def _for_all(x: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """One for each prompt, of the base's own size."""
    x = np.repeat(x, shape[0], axis=0) if len(x) == 1 else x
    if x.shape[:-1] != shape:
        raise UserError(
            f"{name} videos have the shape {x.shape[:-1]}, but {shape[0]} of {shape[1]} frames of "
            f"{shape[2]}×{shape[3]} are needed."
        )
    return x

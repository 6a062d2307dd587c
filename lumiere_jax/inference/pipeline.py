"""The cascade as one Python object: from prompts to videos."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lumiere_jax.cascade.frames import check_frames
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.inference import style
from lumiere_jax.inference.editing import Editing
from lumiere_jax.inference.pretrained import Pretrained
from lumiere_jax.inference.sampling import (
    SamplingOptions,
    make_base_sampler,
    make_super_resolution_sampler,
    run_sampler,
    sample_keys,
)
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.sharding import gather, padded_batch


class LumierePipeline(Editing, Pretrained):
    """Text to video: a base stage, then any number of super-resolution stages.

    Attributes:
      base: the base stage, "stunet" (or "t2i" for single images).
      super_resolution: the stages that follow, each with its parameters.
      show_progress: whether progress is printed to stderr.
    """

    def __init__(
        self,
        base: tuple[Stage, Params],
        super_resolution: Sequence[tuple[Stage, Params]] = (),
        *,
        show_progress: bool = True,
        mesh: Mesh | None = None,
    ):
        """Puts stages together.

        Args:
          base: see the class.
          super_resolution: see the class.
          show_progress: see the class.
          mesh: where to compute, with parameters that are on it already; None: whatever suits
            each batch.

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
        self.base, self.super_resolution = base, list(super_resolution)
        self.show_progress = show_progress
        self._mesh = mesh
        self._samplers: dict[tuple, object] = {}
        self._progress: Progress | None = None

    def with_style(self, workdir: str | Path, alpha: float) -> "LumierePipeline":
        """A pipeline whose base makes images in a style, see `style.interpolate`.

        Args:
          workdir: of a run of the stage "style".
          alpha: share of the style's weights, in [0, 1].

        Raises:
          UserError: if the checkpoint is of another stage or network, or alpha out of range.
        """
        stage, params = self.base
        styled = style.interpolate(stage.config, params, workdir, alpha)
        return LumierePipeline(
            (stage, styled), self.super_resolution, show_progress=self.show_progress
        )

    def fingerprints(self) -> list[str]:
        """Which weights each stage has, see `checkpoint.fingerprint`."""
        return [checkpoint.fingerprint(params) for _, params in (self.base, *self.super_resolution)]

    @property
    def fps(self) -> float:
        """Frames per second of the videos it makes."""
        return self.base[0].config.data.fps

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
        finish: Callable[[np.ndarray], np.ndarray] | None = None,
        on_batch: Callable[[int, np.ndarray], None] | None = None,
        on_estimate: Callable[[np.ndarray, np.ndarray], None] | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Makes one video a prompt; the same prompt and seed give the same video.

        Args:
          prompts: what to show.
          seeds: one a prompt; 0, 1, … if None.
          negative_prompt: what guidance leads away from, in place of no text.
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
          **options: `num_steps` and `sampler` of every stage, `guidance_scale` and the other fields
            of `SamplingOptions` of the base alone; None for the config's own.

        Returns:
          `[num_prompts, time, height, width, 3]`, float32 in [-1, 1].

        Raises:
          UserError: for an option, prompt or frame count that cannot be used.
        """
        prompts = list(prompts)
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if not prompts or len(seeds) != len(prompts):
            raise UserError(f"{len(prompts)} prompts with {len(seeds)} seeds: give one seed each.")
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise UserError(f"seeds must be in [0, 2^32); got {min(seeds)} to {max(seeds)}.")
        frames = self.checked_frames(num_frames)
        given = self._given(len(prompts), frames, known, initial)
        if negative_prompt:
            text, mask = self.base[0].text_encoder([negative_prompt])
            given |= {"null_text": np.repeat(text, len(prompts), 0)}
            given |= {"null_mask": np.repeat(mask, len(prompts), 0)}
        batch_size = min(batch_size, len(prompts))
        if self._mesh is not None:
            batch_size = padded_batch(batch_size, self._mesh)
        videos = []
        for begin in range(0, len(prompts), batch_size):
            chosen = slice(begin, begin + batch_size)
            # The last batch is filled up, so that there is one compilation for all.
            missing = batch_size - len(prompts[chosen])
            batch_prompts = prompts[chosen] + [""] * missing
            batch_seeds = seeds[chosen] + [0] * missing
            batch_given = {name: _filled_up(x[chosen], missing) for name, x in given.items()}
            video = self._base_video(
                batch_prompts, batch_seeds, frames, batch_given, options, on_estimate
            )
            if self.super_resolution and not base_only:
                video = video if finish is None else finish(gather(video))
                video = self.refine_all(video, batch_prompts, batch_seeds, options)
            made = gather(video)[: len(prompts[chosen])]
            videos.append(made if finish is None else finish(made))
            if on_batch is not None:
                on_batch(begin, videos[-1])
        return np.concatenate(videos)

    def checked_frames(self, num_frames: int | None) -> int:
        """Frames of a video; None for what the base was trained on.

        Raises:
          UserError: for a number that the base does not make.
        """
        stage = self.base[0]
        frames = stage.config.data.num_frames if num_frames is None else num_frames
        check_frames(stage.config, frames)
        return frames

    def _given(
        self,
        count: int,
        frames: int,
        known: tuple[np.ndarray, np.ndarray] | None,
        initial: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """What the base sampler takes beside the text; see `make_base_sampler`."""
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
            pixels = np.concatenate([video * mask, mask], axis=-1)
            given["known"] = _for_all(pixels, shape, "known")
        if initial is not None:
            given["initial"] = _for_all(np.asarray(initial, np.float32), shape, "initial")
        return given

    def _base_video(
        self,
        prompts: list[str],
        seeds: list[int],
        frames: int,
        given: dict[str, np.ndarray],
        options: dict[str, Any],
        on_estimate: Callable[[np.ndarray, np.ndarray], None] | None,
    ) -> jax.Array:
        stage, params = self.base
        chosen = SamplingOptions.from_config(stage.config, **options)
        name = ("base", chosen, frames, on_estimate)
        if name not in self._samplers:
            self._samplers[name] = make_base_sampler(
                stage, chosen, frames, self._advance, on_estimate
            )
        text, mask = stage.text_encoder(prompts)
        self._start("base", chosen.num_steps)
        inputs = (text, mask, sample_keys(seeds, 0), given)
        return self._run(name, stage, params, frames, inputs)

    def refine_all(
        self,
        video: jax.Array | np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        options: dict[str, Any],
    ) -> jax.Array | np.ndarray:
        """Runs all super-resolution stages, see `refine`; `options` are those of `__call__`."""
        shared = {name: options.get(name) for name in ("num_steps", "sampler")}
        for index in range(len(self.super_resolution)):
            video = self.refine(video, prompts, seeds, index, **shared)
        return video

    def refine(
        self,
        video: jax.Array | np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        index: int = 0,
        *,
        num_steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
    ) -> jax.Array:
        """Runs one super-resolution stage on any video.

        Args:
          video: `[batch, time, height, width, 3]` in [-1, 1], any number of frames.
          prompts: one a video.
          seeds: one a video.
          index: which of the super-resolution stages.
          num_steps: network calls; None for the config's own.
          sampler: see `__call__`.
          guidance_scale: None for the config's own.

        Returns:
          The video, `config.ssr.factor` times as high and wide.
        """
        stage, params = self.super_resolution[index]
        options = SamplingOptions.from_config(
            stage.config, num_steps=num_steps, sampler=sampler, guidance_scale=guidance_scale
        )
        name = ("ssr", index, options)
        if name not in self._samplers:
            self._samplers[name] = make_super_resolution_sampler(stage, options, self._advance)
        embedded = stage.text_encoder(list(prompts))
        self._start(f"super-resolution {index + 1}", options.num_steps)
        keys = sample_keys(list(seeds), 1 + index)
        return self._run(name, stage, params, video.shape[1], (video, *embedded, keys))

    def _start(self, label: str, num_steps: int) -> None:
        self._progress = Progress(label, num_steps, "steps") if self.show_progress else None
        if self._progress:
            self._progress.announce("compiling if it is the first time, this can take minutes")

    def _advance(self) -> None:
        if self._progress:
            self._progress.advance()

    def _run(
        self, name: tuple, stage: Stage, params: Params, frames: int, inputs: tuple
    ) -> jax.Array:
        return run_sampler(self._samplers[name], stage, params, frames, inputs, self._mesh)


def _filled_up(x: np.ndarray, missing: int) -> np.ndarray:
    """More rows like the last."""
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x


def _for_all(x: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """One for each prompt, of the base's own size."""
    x = np.repeat(x, shape[0], axis=0) if len(x) == 1 else x
    if x.shape[:-1] != shape:
        raise UserError(
            f"{name} videos have the shape {x.shape[:-1]}, but {shape[0]} of {shape[1]} frames of "
            f"{shape[2]}×{shape[3]} are needed."
        )
    return x

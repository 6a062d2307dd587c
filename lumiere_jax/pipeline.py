"""The cascade as one Python object: from prompts to videos."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from lumiere_jax import checkpoint, text
from lumiere_jax.errors import UserError
from lumiere_jax.progress import Progress
from lumiere_jax.sampling import (
    SamplingOptions,
    make_base_sampler,
    make_super_resolution_sampler,
    run_sampler,
    sample_keys,
)
from lumiere_jax.sharding import gather, padded_batch
from lumiere_jax.stage import Stage
from lumiere_jax.state import Params


class LumierePipeline:
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

    @classmethod
    def from_checkpoints(
        cls,
        base: str | Path,
        ssr: Sequence[str | Path] = (),
        *,
        show_progress: bool = True,
        text_folder: str | Path | None = None,
    ) -> "LumierePipeline":
        """Loads the newest checkpoint of each stage's workdir.

        Args:
          base: workdir of the base stage.
          ssr: workdirs of super-resolution stages, in order.
          show_progress: whether to print progress to stderr.
          text_folder: where the text encoder's weights are on this machine; None for where they
            were in training.

        Raises:
          UserError: if a workdir has no readable checkpoint, or one of the wrong stage.
        """

        def load(workdir: str | Path) -> tuple[Stage, Params]:
            config, params, _ = checkpoint.load(workdir)
            text.move_folder(config.text, text_folder, workdir)
            return Stage.from_config(config), params

        return cls(load(base), [load(path) for path in ssr], show_progress=show_progress)

    @property
    def fps(self) -> float:
        """Frames per second of the videos it makes."""
        return self.base[0].config.data.fps

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        num_steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        num_frames: int | None = None,
        base_only: bool = False,
        batch_size: int = 8,
        on_batch: Callable[[int, np.ndarray], None] | None = None,
    ) -> np.ndarray:
        """Makes one video a prompt; the same prompt and seed give the same video.

        Args:
          prompts: what to show.
          seeds: one a prompt; 0, 1, … if None.
          num_steps: network calls of every stage; None for each config's own.
          sampler: "ddim", "ancestral", "dpmpp_2m" or "ddpm"; None for each config's own.
          guidance_scale: of the base; None for its config's own.
          num_frames: frames of the video; None for what the base was trained on.
          base_only: leaves super-resolution out.
          batch_size: videos made at once.
          on_batch: called with the number of the first prompt and the videos of each batch, as
            soon as they are done; it may raise to end the work.

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
            video = self._base_video(
                batch_prompts, batch_seeds, num_steps, sampler, guidance_scale, num_frames
            )
            for index in range(0 if base_only else len(self.super_resolution)):
                video = self.refine(
                    video, batch_prompts, batch_seeds, index, num_steps=num_steps, sampler=sampler
                )
            videos.append(gather(video)[: len(prompts[chosen])])
            if on_batch is not None:
                on_batch(begin, videos[-1])
        return np.concatenate(videos)

    def _base_video(
        self,
        prompts: list[str],
        seeds: list[int],
        num_steps: int | None,
        sampler: str | None,
        guidance_scale: float | None,
        num_frames: int | None,
    ) -> jax.Array:
        stage, params = self.base
        frames = stage.config.data.num_frames if num_frames is None else num_frames
        if frames < 1:
            raise UserError(f"num_frames={frames} must be 1 or more.")
        if stage.name == "t2i" and frames != 1:
            raise UserError(f"stage 't2i' makes single images; num_frames={frames} must be 1.")
        options = SamplingOptions.from_config(
            stage.config, num_steps=num_steps, sampler=sampler, guidance_scale=guidance_scale
        )
        embedded = stage.text_encoder(prompts)
        name = ("base", options, frames)
        if name not in self._samplers:
            self._samplers[name] = make_base_sampler(stage, options, frames, self._advance)
        self._start("base", options.num_steps)
        inputs = (*embedded, sample_keys(seeds, 0))
        return self._run(name, stage, params, frames, inputs)

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

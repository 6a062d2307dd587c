"""What the eval binary generates before it scores."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from lumiere_jax import text
from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.sources import Source, create_source
from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.evaluation import ucf101
from lumiere_jax.evaluation.generation import FORMATS, Request, generate
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.distributed import is_primary, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import create_mesh

UCF101 = "ucf101_zero_shot"
HELD_OUT = "held_out"


@dataclasses.dataclass(frozen=True)
class Made:
    """What a task made.

    Attributes:
      generated: a folder for each set.
      real: a folder; None if the task knows of none.
      model: what generated, for the card.
    """

    generated: tuple[Path, ...]
    real: Path | None
    model: dict[str, Any]


class Task(Protocol):
    """Makes the videos of a protocol.

    Attributes:
      name: for the card.
      protocol: what the videos were asked for by, for the card.
    """

    name: str
    protocol: dict[str, Any]

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """Makes what is not in `output` yet; `poll` is called now and then, and may raise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """A cascade and how to sample from it.

    Attributes:
      base: workdir of the base stage.
      ssr: workdirs of super-resolution stages.
      batch_size: videos at once.
      suffix: of the files; a name of `generation.FORMATS`.
      text_folder: of the text encoder's weights; None for where they were in training.
      mesh: sizes of the mesh's axes for several processes, see `sharding.create_mesh`.
      options: of `LumierePipeline.__call__`, such as "num_steps"; None where a config decides.
    """

    base: Path
    ssr: tuple[Path, ...] = ()
    batch_size: int = 8
    suffix: str = "mkv"
    text_folder: Path | None = None
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
          UserError: for an unknown format.
        """
        if self.suffix not in FORMATS:
            raise UserError(f"--video_format={self.suffix} is unknown; use one of {list(FORMATS)}.")

    def load(self) -> tuple[LumierePipeline, dict[str, Any]]:
        """Loads the newest checkpoints.

        Returns:
          The pipeline, and what it is made of, for the card.

        Raises:
          UserError: if a workdir has none.
        """
        mesh = create_mesh(ConfigDict(self.mesh)) if jax.process_count() > 1 else None
        stages, model = [], {}
        for workdir in (self.base, *self.ssr):
            config, params, step = checkpoint.load(workdir, mesh)
            text.move_folder(config.text, self.text_folder, workdir)
            stages.append((Stage.from_config(config), params))
            model[config.stage] = f"{workdir}, step {step}"
        pipeline = LumierePipeline(stages[0], stages[1:], show_progress=is_primary(), mesh=mesh)
        sampling = {k: v for k, v in stages[0][0].config.sampling.items() if k != "prompts"}
        given = {name: value for name, value in self.options.items() if value is not None}
        frames = given.get("num_frames", stages[0][0].config.data.num_frames)
        model["sampling"] = sampling | given | {"num_frames": frames, "fps": pipeline.fps}
        model["batch"], model["video_format"] = self.batch_size, self.suffix
        return pipeline, model

    def make(
        self,
        pipeline: LumierePipeline,
        model: dict[str, Any],
        sets: Sequence[tuple[Path, dict[str, Any], Sequence[Request]]],
        poll: Callable[[], None],
    ) -> tuple[Path, ...]:
        """Generates sets: folder, settings and requests of each."""
        for folder, settings, requests in sets:
            generate(
                pipeline,
                requests,
                folder,
                {"model": _plain(model), **settings},
                batch_size=self.batch_size,
                suffix=self.suffix,
                options=self.options,
                poll=poll,
            )
        return tuple(folder for folder, _, _ in sets)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ucf101ZeroShot:
    """Videos of UCF101's classes from a model that never saw them.

    Attributes:
      generator: what makes them.
      preset: a name of `ucf101.PRESETS`.
      seed: of the first set.
      repeats: how many sets, with seeds one after another.
      max_per_class: for a trial; None for what the preset says.
    """

    generator: Generator
    preset: str = "lumiere"
    seed: int = 0
    repeats: int = 1
    max_per_class: int | None = None
    name: str = UCF101

    @property
    def protocol(self) -> dict[str, Any]:
        """See `Task`."""
        preset = ucf101.PRESETS[self.preset]
        shares = preset.counts if self.max_per_class is None else f"{self.max_per_class} a class"
        return {
            "preset": f"{self.preset} ({preset.source})",
            "prompts": preset.prompts,
            "videos_by_class": shares,
            "seeds": [self.seed + i for i in range(self.repeats)],
        }

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """See `Task`."""
        wanted = [
            (self.seed + i, ucf101.requests(self.preset, self.seed + i, self.max_per_class))
            for i in range(self.repeats)
        ]
        pipeline, model = self.generator.load()
        settings = {"preset": self.preset, "max_per_class": self.max_per_class}
        sets = [
            (output / "videos" / str(seed), settings | {"seed": seed}, requests)
            for seed, requests in wanted
        ]
        return Made(self.generator.make(pipeline, model, sets, poll), None, model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Videos of the captions of the clips that the base stage's data source holds out.

    Attributes:
      generator: what makes them.
      num_videos: how many of both, real and generated.
      seed: of the first set.
      repeats: how many sets.
    """

    generator: Generator
    num_videos: int
    seed: int = 0
    repeats: int = 1
    name: str = HELD_OUT

    @property
    def protocol(self) -> dict[str, Any]:
        """See `Task`."""
        return {"prompts": "captions of held-out clips", "split": "test", "seed": self.seed}

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """See `Task`."""
        pipeline, model = self.generator.load()
        data = pipeline.base[0].config.data
        frames = self.generator.options.get("num_frames")
        if frames is not None:
            data = dataclasses.replace(data, num_frames=frames)
        for stage, _ in pipeline.super_resolution:
            if not self.generator.options.get("base_only"):
                data = dataclasses.replace(data, resolution=stage.config.data.resolution)
        source = create_source(data, "test")
        if len(source) < self.num_videos:
            raise UserError(
                f"--num_videos={self.num_videos}: the data source {data.name} holds out "
                f"{len(source)} clips only."
            )
        real = output / "real"
        captions = _write_real(real, source, self.num_videos, data.fps, poll)
        sets = []
        for repeat in range(self.repeats):
            seed = self.seed + repeat
            requests = [
                Request(f"{i:06d}_{seed}", caption, (seed * 1_000_000 + i) % 2**32)
                for i, caption in enumerate(captions)
            ]
            settings = {"captions": "held out", "num_videos": self.num_videos, "seed": seed}
            sets.append((output / "videos" / str(seed), settings, requests))
        return Made(self.generator.make(pipeline, model, sets, poll), real, model)


def _write_real(
    folder: Path, source: Source, count: int, fps: float, poll: Callable[[], None]
) -> list[str]:
    """Writes held-out clips once each, and returns their captions."""
    captions = []
    if is_primary():
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        video, caption = source.example(index)
        path = folder / f"{index:06d}.mkv"
        if is_primary() and not path.is_file():
            write_lossless(path, video, fps)
        captions.append(caption)
        poll()
    wait_for_all("real videos")
    return captions


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    """What JSON makes of it, so that it compares equal to what was read back."""
    return {k: _plain(v) if isinstance(v, dict) else str(v) for k, v in model.items()}

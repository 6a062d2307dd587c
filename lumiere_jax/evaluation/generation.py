"""Videos that a protocol asks for, generated once each, by one job or by several after another."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from lumiere_jax import text
from lumiere_jax.cascade.config import StageConfig, check_frames
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.video_io import write_lossless, write_mp4
from lumiere_jax.data.video_timing import frames_in
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.inference import autoguidance
from lumiere_jax.inference.pipeline import SHARED_OPTIONS, LumierePipeline
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.distributed import is_primary, say, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.sharding import batch_parts, create_mesh

FORMATS: dict[str, Callable[[Path, np.ndarray, float], None]] = {
    "mkv": write_lossless,
    "mp4": write_mp4,
}
"""Suffixes of files: FFV1, which loses nothing, and H.264, which browsers play."""

_SETTINGS = "generation.json"
_BATCH = 8  # videos at once, if nobody says and no more devices share them


@dataclasses.dataclass(frozen=True)
class Request:
    """One video to generate."""

    name: str  # of its file below the folder, without a suffix; a function of class, index and seed
    prompt: str  # what it shows
    seed: int  # of its noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """A cascade and how to sample from it."""

    base: epath.Path  # workdir of the base stage; this and the next two may be in a bucket
    ssr: tuple[epath.Path, ...] = ()  # workdirs of super-resolution stages
    guide: epath.Path | None = None  # workdir of a weaker base, see `autoguidance.load`
    batch_size: int | None = None  # videos at once; None: 8, or more if that fills the devices
    suffix: str = "mkv"  # of the files; a name of `FORMATS`
    text_folder: Path | None = None  # of the text encoder; None: where it was in training
    mesh: dict[str, int] = field(default_factory=dict)  # of several processes, see `create_mesh`
    options: dict[str, Any] = field(default_factory=dict)
    """Of `LumierePipeline.__call__`, such as "num_steps"; None where a config decides."""

    def __post_init__(self) -> None:
        if self.suffix not in FORMATS:
            raise UserError(f"--video_format={self.suffix} is unknown; use one of {list(FORMATS)}.")

    def configs(self) -> list[ConfigDict]:
        """Of the stages, read without their parameters; a `UserError` if a workdir has none."""
        configs = [checkpoint.load_config(workdir) for workdir in self._workdirs]
        for config, workdir in zip(configs, self._workdirs, strict=True):
            text.move_folder(config.text, self.text_folder, workdir)
        return configs

    def check(self, rule: ClipRule) -> None:
        """Refuses, before anything is loaded, videos that a rule could take no clip of."""
        base = StageConfig.parse(self.configs()[0])
        frames, fps = self.options.get("num_frames") or base.data.num_frames, base.data.fps
        check_frames(base, frames)
        available = frames_in(frames / fps, rule.fps or fps)
        if available < rule.span:
            resampled = f", {available} at --fps={rule.fps:g}" if rule.fps else ""
            raise UserError(
                f"videos of {self.base} have {frames} frames at {fps:g} fps{resampled}, but a clip "
                f"of --num_frames={rule.num_frames} with --stride={rule.stride} spans {rule.span}: "
                "ask for fewer, or generate more (--sample_frames)."
            )

    @property
    def _workdirs(self) -> tuple[epath.Path, ...]:
        """Of the stages that are sampled."""
        return (self.base, *(() if self.options.get("base_only") else self.ssr))

    def load(self) -> "LoadedGenerator":
        """Loads the newest checkpoints; a `UserError` if a workdir has none."""
        mesh = create_mesh(self.mesh) if jax.process_count() > 1 else None
        batch_size = self._batch_size(mesh)
        stages, model = dict[str, tuple[Stage, Params]](), dict[str, Any]()
        for number, workdir in enumerate(self._workdirs):
            config, params, step = checkpoint.load(workdir, mesh)
            text.move_folder(config.text, self.text_folder, workdir)
            name = config.stage + f" {number}" * (config.stage in stages)
            stages[name] = Stage.from_config(config), params
            model[name] = _named(workdir, step, params)
        base_stage, *super_resolution = stages.values()
        base, guide = base_stage[0].config, None
        if self.guide is not None:
            guide, step = autoguidance.load(self.guide, base, mesh)
            model["guide"] = _named(self.guide, step, guide)
        pipeline = LumierePipeline(
            base_stage, super_resolution, guide=guide, show_progress=is_primary(), mesh=mesh
        )
        given = {name: value for name, value in self.options.items() if value is not None}
        frames = given.get("num_frames", base.data.num_frames)
        model["sampling"] = _sampling(base) | given | {"num_frames": frames, "fps": pipeline.fps}
        shared = {name: given[name] for name in SHARED_OPTIONS if name in given}
        for name, (stage, _) in list(stages.items())[1:]:
            model[f"{name} sampling"] = _sampling(stage.config) | dict(stage.ssr) | shared
        model["batch"] = f"{batch_size}; videos of other batches differ by rounding"
        model["video_format"] = self.suffix
        return LoadedGenerator(self, pipeline, model, batch_size)

    def _batch_size(self, mesh: Mesh | None) -> int:
        """Videos at once; says what fills devices, or does not."""
        parts = 1 if mesh is None else batch_parts(mesh)
        wanted = self.batch_size or _BATCH
        filled = -(-wanted // parts) * parts
        if self.batch_size is None:
            if filled != wanted:
                say(f"--batch_size={filled}: it fills the devices, into {parts} parts")
            return filled
        if filled != wanted:
            say(
                f"--batch_size={wanted} is filled up with {filled - wanted} copies, since the "
                f"devices split a batch into {parts} parts; {filled} videos take no longer"
            )
        return wanted


@dataclasses.dataclass(frozen=True)
class LoadedGenerator:
    """A cascade with its parameters; `model` says what it is made of, for the card."""

    generator: Generator
    pipeline: LumierePipeline
    model: dict[str, Any]
    batch_size: int  # videos at once

    def generate(
        self,
        output: Path,
        settings: dict[str, Any],
        requests: Mapping[int, Sequence[Request]],
        poll: Callable[[], None],
    ) -> tuple[Path, ...]:
        """Generates what is not there yet, and returns the folders, OUTPUT/videos/SEED.

        Batches are always the same ones: a video does not depend on which others are there already,
        and on the size of batches by no more than rounding.
        With several processes all compute every batch, and each writes some of its videos.

        Args:
          output: holds the folders; files that are complete stay.
          settings: what the videos depend on besides model and seed; kept in the folders, and must
            be the same again, or it is a `UserError`.
          requests: which videos, by the seed of their set.
          poll: called after every batch, equally often on every process; may raise.
        """
        folders = {seed: output / "videos" / str(seed) for seed in requests}
        for seed, folder in folders.items():
            agree_on_settings(folder, {"model": self._known_by(), **settings, "seed": seed})
        for seed, folder in folders.items():
            self._generate(folder, requests[seed], poll)
            wait_for_all(f"videos {folder.name}")
        return tuple(folders.values())

    def _known_by(self) -> dict[str, Any]:
        """What videos must have in common; batches of another size change no more than rounding."""
        return _plain({name: value for name, value in self.model.items() if name != "batch"})

    def _generate(
        self, folder: Path, requests: Sequence[Request], poll: Callable[[], None]
    ) -> None:
        size, suffix = self.batch_size, self.generator.suffix
        batches = [requests[i : i + size] for i in range(0, len(requests), size)]
        missing = [any(not _path(folder, r, suffix).is_file() for r in batch) for batch in batches]
        if jax.process_count() > 1:  # all must work on the same batches
            missing = multihost_utils.broadcast_one_to_all(np.array(missing)).tolist()
        todo = [batch for batch, is_missing in zip(batches, missing, strict=True) if is_missing]
        count, done = len(requests), len(requests) - sum(map(len, todo))
        progress = Progress("generated", count, "videos", start=done, quiet=not is_primary())
        if done:
            progress.update(done, force=True)
        for batch in todo:
            self._write_batch(folder, batch, min(size, count))
            done += len(batch)
            progress.update(done, force=True)
            poll()

    def _write_batch(self, folder: Path, batch: Sequence[Request], size: int) -> None:
        """Generates a batch, filled up to its usual size, and writes this process's share."""
        filled = [*batch, *[batch[-1]] * (size - len(batch))]
        videos = self.pipeline(
            [request.prompt for request in filled],
            seeds=[request.seed for request in filled],
            batch_size=self.batch_size,
            **self.generator.options,
        )
        for index, (request, video) in enumerate(zip(batch, videos, strict=False)):
            path = _path(folder, request, self.generator.suffix)
            if index % jax.process_count() == jax.process_index() and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                FORMATS[self.generator.suffix](path, video, self.pipeline.fps)


def _sampling(config: StageConfig) -> dict[str, Any]:
    """How a stage is sampled, as its config says."""
    return {name: value for name, value in config.sampling.items() if name != "prompts"}


def _named(workdir: epath.Path, step: int | None, params: Params) -> str:
    """Which weights a stage has."""
    return f"{workdir}, step {step}, weights {checkpoint.fingerprint(params)}"


def _plain(model: dict[str, Any]) -> dict[str, Any]:
    """What JSON makes of it, so that it compares equal to what was read back."""
    return {k: _plain(v) if isinstance(v, dict) else str(v) for k, v in model.items()}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that are not as they were, each by its whole name."""
    was, is_now = (flatten_dict(settings, sep=".") for settings in (before, now))
    changed = sorted(name for name in was | is_now if was.get(name) != is_now.get(name))
    return "; ".join(f"{name}: {was.get(name)}, now {is_now.get(name)}" for name in changed)


def _path(folder: Path, request: Request, suffix: str) -> Path:
    return folder / f"{request.name}.{suffix}"


def agree_on_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes what the videos of a folder depend on beside them, or compares it with what is there.

    A `UserError` if it differs, or if there are videos of which nothing says what they depend on.
    """
    path, advice = folder / _SETTINGS, "give another --output, or remove the folder."
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if before:  # it was compared once
            before.get("model", {}).pop("batch", None)
        is_taken = before is None and folder.is_dir() and any(folder.iterdir())
        wait_for_all(f"settings of {folder.name} are read")
        if is_taken:
            raise UserError(f"{folder} does not say how its videos were made; {advice}")
        if before is None:
            if is_primary():
                folder.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")
        elif shown := _differences(before, settings):
            raise UserError(
                f"{folder} holds videos that were made with other settings ({shown}); {advice}"
            )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be used for videos ({error}).") from error
    wait_for_all(f"settings of {folder.name} are known")

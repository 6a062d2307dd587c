"""From a batch of jobs to their videos, by pipelines that stay loaded."""

import collections
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumiere_jax.inference import provenance
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.tasks import TASKS
from lumiere_jax.runtime.cache_folder import CacheFolder
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.serving import decoding
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.queue import Job
from lumiere_jax.serving.requests import NUMBERS
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.watch import Watch

_PROGRAMS = 64  # that are held in memory; clients may ask for ever new sizes, and a video takes 6
_STYLES = 2  # pipelines with mixed parameters that are kept

_NAMES = {"steps": "num_steps"}  # options that the pipeline calls otherwise


class JobError(Exception):
    """A job that cannot be done, with a reason that its client may read."""


class Runner:
    """Makes videos. For one thread at a time."""

    def __init__(self, settings: Settings):
        """Loads no weights yet. Raises `UserError` if the bundle cannot be read."""
        self._settings = settings
        self._models = Models.read(settings.bundle, distilled=settings.distilled)
        self._pipelines: dict[str, LumierePipeline] = {}
        self._fingerprints: dict[str, list[str]] = {}
        self._styles: collections.OrderedDict[tuple, LumierePipeline] = collections.OrderedDict()
        self._programs = Programs(CacheFolder.of_user(), most=_PROGRAMS)

    def load(self, job: Job) -> None:
        """Loads the weights that a job needs, but for styles; `UserError` if it cannot."""
        self._pipeline(TASKS[job.task].base)

    def stages(self, job: Job) -> int:
        """How many stages a job goes through."""
        model = self._models.by_base[TASKS[job.task].base]
        following = 0 if job.options.get("base_only") else len(model.refining)
        if job.task != "extend":
            return 1 + following
        context = job.options.get("context") or max(model.frames // 4, 1)
        return math.ceil(job.options["num_frames"] / max(model.frames - context, 1)) + following

    def run(self, jobs: Sequence[Job], files: Mapping[str, bytes], watch: Watch) -> list[bytes]:
        """Makes an MP4 for each of some jobs that have the same batch key, or for one job.

        `files` were uploaded with the one job; `watch` is told how far it is, and may stop it.

        Raises:
          JobError: if the job cannot be done as it was asked for.
          Stopped: if `watch` says so.
        """
        pipeline = self._pipeline(TASKS[jobs[0].task].base)
        watch.raise_if_stopped()
        if "style" in jobs[0].options:
            pipeline = self._styled(jobs[0])
        try:
            given = self._decoded(files, pipeline)
            videos = self._call(pipeline, jobs, given, watch)
        except UserError as error:
            told = str(error).replace(str(self._settings.bundle), "…")
            raise JobError(told.replace(str(self._settings.scratch), "…")) from error
        watch.finishing()
        fps = pipeline.fps
        return [self._encoded(video, fps, job) for job, video in zip(jobs, videos, strict=True)]

    def _decoded(self, files: Mapping[str, bytes], pipeline: LumierePipeline) -> dict[str, Any]:
        """The arguments that files are; they were checked when they were sent."""
        if not files:
            return {}
        settings = self._settings
        return decoding.decode(
            files, fps=pipeline.fps, side=pipeline.side, least_frames=1, limits=settings.limits,
            scratch=settings.scratch, keeps=True,
        ).arrays  # fmt: skip

    def _call(
        self, pipeline: LumierePipeline, jobs: Sequence[Job], given: dict[str, Any], watch: Watch
    ) -> np.ndarray:
        first = jobs[0]
        # Batches of 3 and 4 share a program: sizes are powers of two.
        missing = 2 ** math.ceil(math.log2(len(jobs))) - len(jobs)
        options = {_NAMES.get(name, name): value for name, value in first.options.items()}
        for name in ("prompt", "seed", "style", "alpha", "region", *NUMBERS):
            options.pop(name, None)
        options.update(given)
        jobs = [*jobs, *[first] * missing]
        method = pipeline if TASKS[first.task].from_text else getattr(pipeline, first.task)
        return method(
            prompts=[job.options["prompt"] for job in jobs],
            seeds=[job.options["seed"] for job in jobs],
            each=[{n: job.options[n] for n in NUMBERS if n in job.options} for job in jobs],
            listener=watch,
            on_estimate=watch.estimate,
            batch_size=len(jobs),
            **options,
        )[: len(jobs) - missing]

    def _pipeline(self, base: str) -> LumierePipeline:
        if base not in self._pipelines:
            settings = self._settings
            self._pipelines[base] = LumierePipeline.from_pretrained(
                settings.bundle,
                base=base,
                distilled=settings.distilled,
                show_progress=False,
                text_folder=settings.text_folder,
                programs=self._programs,
            )
            self._fingerprints[base] = self._pipelines[base].fingerprints()
        return self._pipelines[base]

    def _styled(self, job: Job) -> LumierePipeline:
        """A pipeline whose base is mixed with a job's style; the latest ones are kept."""
        key = job.options["style"], job.options["alpha"]
        if key not in self._styles:
            pipeline = self._pipeline(TASKS[job.task].base)
            self._styles[key] = pipeline.with_style(self._settings.bundle / key[0], key[1])
        self._styles.move_to_end(key)
        while len(self._styles) > _STYLES:
            self._styles.popitem(last=False)
        return self._styles[key]

    def _encoded(self, video: np.ndarray, fps: float, job: Job) -> bytes:
        task = TASKS[job.task]
        # No paths in the note: those of the server are nobody's business.
        flags = {name: value for name, value in job.options.items() if name != "region"}
        note = provenance.compose(task.command, flags, self._fingerprints[task.base])
        with tempfile.TemporaryDirectory(dir=self._settings.scratch) as folder:
            path = Path(folder) / "video.mp4"
            write_viewable(path, video, fps, job.options["prompt"], note)
            return path.read_bytes()

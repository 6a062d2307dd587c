"""Sample videos that a training run writes into its workdir.

Every part of the mesh makes one clip at a time, so that the memory of a device does not depend on
how many there are. Parts for which there is no clip repeat another one; nobody decodes it again or
looks at what comes of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage, SuperResolutionStage
from lumiere_jax.data.source import Source
from lumiere_jax.data.sources import spread
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.diffusion.low_resolution import downsample
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.sampling import StageSampler, raw_sample_keys
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.programs import Programs
from lumiere_jax.runtime.sharding import batch_parts, first_rows, one_for_each_part


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the samples of a run show, always the same, and the sampler, which compiles once."""

    prompts: list[str]
    inputs: Mapping[str, np.ndarray]  # fields of `Inputs`, a row for each prompt
    sampler: StageSampler


def needs_held_out(stage: Stage) -> bool:
    """Whether samples show held-out clips or their captions."""
    return stage.is_super_resolution or not stage.config.sampling.prompts


def choose(stage: Stage, held_out: Source | None, programs: Programs | None = None) -> Shown:
    """The prompts of the config or, for super-resolution, held-out clips that are refined again.

    These are spread over the source, whose neighbours are often alike, as many as there are
    prompts, with their own captions; other stages take the captions alone, if there are no prompts.
    The programs of the sampler are among `programs`.
    """
    prompts, inputs = list(stage.config.sampling.prompts), {}
    count = stage.config.sampling.num_samples
    if isinstance(stage, SuperResolutionStage):
        assert held_out is not None
        prompts, inputs["video"] = _small_clips(stage, held_out, count)
    elif not prompts:
        assert held_out is not None
        prompts = [held_out.example(index)[1] for index in spread(held_out, count)]
    if stage.is_conditional:
        frames, height, width, _ = stage.clip_shape()
        inputs["known"] = np.zeros((len(prompts), frames, height, width, 4), np.float32)
    inputs["text"], inputs["text_mask"] = stage.text_encoder(prompts)
    place = int(stage.is_super_resolution)  # in the cascade
    inputs["keys"] = np.asarray(raw_sample_keys(jnp.arange(len(prompts)), place))
    options = SamplingOptions.from_config(stage.config)
    return Shown(prompts, inputs, StageSampler(stage, options, programs=programs))


def sheet(workdir: str | Path, step: int) -> epath.Path:
    """The picture of the samples of a step, which is written last."""
    return epath.Path(workdir).expanduser() / "samples" / f"{step:08d}" / "samples.png"


def steps(workdir: str | Path) -> list[int]:
    """The steps whose samples are complete."""
    folder = epath.Path(workdir).expanduser() / "samples"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(n) for n in names if n.isdecimal() and sheet(workdir, int(n)).exists())


def write_training_samples(
    shown: Shown,
    stage: Stage,
    params: Params,
    step: int,
    workdir: str | Path,
    mesh: Mesh,
    between: Callable[[], None] | None = None,
) -> epath.Path:
    """Samples what is to be shown and writes `WORKDIR/samples/STEP/`.

    All processes of the mesh compute, the first one writes. The folder, which is returned, then
    holds `samples.png` and, of each clip of more than one frame, an MP4 and a GIF. `between` is
    called after every denoising step, and may raise.
    """
    overview, prompts = sheet(workdir, step), shown.prompts
    folder, videos = overview.parent, sample(shown, params, mesh, between)
    if not is_primary():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for i, video in enumerate(videos if videos.shape[1] > 1 else ()):
        for suffix in (".mp4", ".gif"):
            write_viewable(folder / f"{i:02d}{suffix}", video, stage.config.data.fps, prompts[i])
    write_contact_sheet(overview, videos, prompts)
    return folder


def sample(
    shown: Shown, params: Params, mesh: Mesh, between: Callable[[], None] | None = None
) -> np.ndarray:
    """The clips `[prompts, time, height, width, 3]` in [-1, 1], on every process.

    `between` is called after every denoising step, and may raise.
    """

    def make(begin: int) -> np.ndarray:
        rows = {name: x[begin : begin + at_once] for name, x in shown.inputs.items()}
        batch = Inputs(**{name: one_for_each_part(x, mesh) for name, x in rows.items()})
        return first_rows(shown.sampler(params, batch, mesh, on_step=between), len(rows["text"]))

    at_once = batch_parts(mesh)
    return np.concatenate([make(begin) for begin in range(0, len(shown.prompts), at_once)])


def _small_clips(
    stage: SuperResolutionStage, source: Source, count: int
) -> tuple[list[str], np.ndarray]:
    """Captions and clips, down-sampled one by one."""
    clips, captions = [], []
    for index in spread(source, count):
        video, caption = source.example(index)
        clips.append(np.asarray(downsample(jnp.asarray(video[None]), stage.ssr.factor))[0])
        captions.append(caption)
    return captions, np.stack(clips)

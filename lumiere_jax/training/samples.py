"""Sample videos that a training run writes into its workdir."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage, SuperResolutionStage
from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.diffusion.low_resolution import downsample
from lumiere_jax.inference.outputs import write_viewable
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.sharding import gather, padded_batch


def write_training_samples(
    stage: Stage, params: Params, step: int, workdir: str | Path, mesh: Mesh
) -> epath.Path:
    """Samples the config's prompts and writes `WORKDIR/samples/STEP/`.

    A base stage samples from noise. A super-resolution stage refines held-out clips after
    down-sampling them, with their own captions.

    All processes of the mesh compute, the first one writes. The folder, which is returned, then
    holds `samples.png` and, of each clip of more than one frame, an MP4 and a GIF.
    """
    folder = epath.Path(workdir).expanduser() / "samples" / f"{step:08d}"
    if isinstance(stage, SuperResolutionStage):
        prompts, videos = _refined(stage, params, mesh)
    else:
        prompts = list(stage.config.sampling.prompts)
        videos = LumierePipeline((stage, params), show_progress=False, mesh=mesh)(prompts)
    if not is_primary():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(folder / "samples.png", videos, prompts)
    for i, video in enumerate(videos if videos.shape[1] > 1 else ()):
        for suffix in (".mp4", ".gif"):
            write_viewable(folder / f"{i:02d}{suffix}", video, stage.config.data.fps, prompts[i])
    return folder


def _refined(
    stage: SuperResolutionStage, params: Params, mesh: Mesh
) -> tuple[list[str], np.ndarray]:
    """Held-out clips, down-sampled and refined again."""
    source = create_source(stage.config.data, "test")
    count = min(len(stage.config.sampling.prompts), len(source))
    chosen = [i % count for i in range(padded_batch(count, mesh))]
    videos, prompts = zip(*(source.example(i) for i in chosen), strict=True)
    low = np.asarray(downsample(jnp.stack(videos), stage.ssr.factor))
    sampler = StageSampler(stage, SamplingOptions.from_config(stage.config))
    text, mask = stage.text_encoder(list(prompts))
    inputs = Inputs(text, mask, sample_keys(list(range(len(chosen))), 1), video=low)
    refined = sampler(params, inputs, mesh)
    return list(prompts[:count]), gather(refined)[:count]

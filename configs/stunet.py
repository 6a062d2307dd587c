"""Stage `stunet`: the space-time U-Net, inflated from a `t2i` run; only temporal parameters train.

    python -m lumiere_jax.main --config=configs/stunet.py:tiny --workdir=runs/stunet \
        --config.init_from=runs/t2i

`tiny` is what the tests and the demo train: 8 clips a step at 4.5 steps/s on 2 CPU cores
(2026-11-23, `python -m lumiere_jax.demo`), and after its 1250 steps, on 750 of the stage `t2i`, the
oracle judged colour 92% and direction 83% of 64 held-out captions right (chance 9% and 16%). After
550 steps of 16 clips, which take as long, direction was at 9%, 27% and 28% for three random starts.
`small` is shipped (weights/small/README.md): 1 h 50 min on 2 CPU cores (2026-11-26), not in one
piece. After 350 steps it knew nothing of direction; after 1500 it had 88% of 32 held-out captions
right, after 3300 97% of 256. `full` has the paper's size, and the recipe of `set_full_scale`
(lumiere_jax/cascade/config.py). It learns from videos alone: the image weights are frozen, so they
forget nothing that pictures would have to remind them of, and a still picture says nothing of
motion (joint training, as in Imagen Video, is for networks whose image layers train). 80 frames of
128×128: 4.8B parameters by `jax.eval_shape`, 2.2B of them frozen. By the TPU compiler's estimate
(2026-11-22, `python -m lumiere_jax.plan --config=configs/stunet.py:full --topology=v5p:4x8x8`) a
step of 256 clips on as many chips computes for 3.2 s, an MFU of 55%, in 83 of 95 GiB a chip; it was
never timed on a TPU.

Guidance of 4.0 is a choice [C], since the paper's is not public: above the 1.5 of the small
variants, whose captions leave next to nothing open, and below the 7 that DeepFloyd IF takes for its
base (docs/open_weights.md). Nobody tried it at this scale; it is the first thing to tune, since
that needs no training (`--guidance_scale`). It can do harm. With 4.0 in place of 1.5 the shipped
weights have the background right in 50% of the first 32 held-out captions and the colour in 84% (at
1.5 both in 100% of the first 64), direction in 94% (100%) and shape in 88% (95%). Their clips are
pale: 0.6% of the values are beyond ±0.98, in true clips 10%; thresholding divides by what guidance
pushed out of range (2026-11-30, `LumierePipeline` with `guidance_scale=4.0`, 2 CPU cores). So where
colours are pale, lower it, or limit `sampling.threshold_max`.

`if_xl` inflates DeepFloyd IF's stage I XL, 80 frames of 64×64: 5.9B parameters by `jax.eval_shape`,
4.3B of them frozen; on v5p a step of one clip a chip computes for 1.7 s, an MFU of 51%, in 33 of 95
GiB, by the same estimate (2026-11-23, docs/open_weights.md). `from=WORKDIR` inflates any `t2i`
checkpoint, trained here or imported, and takes its sizes and text encoder from there; its schedule,
too, but for a shift by the number of frames; and, where it was trained here, its clips and its
optimizer. Steps, batch size, frames and mesh are for flags to say.
"""

from lumiere_jax.cascade.config import (
    IF_XL,
    UNET_SIZES,
    ConfigDict,
    choose_variant,
    default_config,
    set_full_scale,
    set_imported,
    set_short_run,
    set_small,
)
from lumiere_jax.checkpoints.inheritance import inherit, source_of


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the variant "tiny", "small", "full", "if_xl" or "from=WORKDIR"."""
    config = default_config("stunet")
    if source := source_of(variant):
        inherit(config, source)
        config.model.temporal_depth = 1
        _decide_motion(config)
        return config
    variant = choose_variant(variant, ("tiny", "small", "full", "if_xl"), "configs/stunet.py")
    config.model.update(IF_XL if variant == "if_xl" else UNET_SIZES[variant])
    config.model.temporal_initialization = "nearest"
    config.model.temporal_conditioning = True
    config.model.temporal_text = True
    if variant == "tiny":
        set_short_run(config, num_steps=1250, batch_size=8)
        config.model.temporal_depth = 1
        config.diffusion.log_snr_shift = -6.0  # motion is decided at more noise than colours are
    elif variant == "small":
        set_small(config, num_steps=3300, batch_size=8)
        config.model.temporal_depth = 1
        config.diffusion.log_snr_shift = -6.0
        config.optimizer.learning_rate = 5e-3
    else:
        set_full_scale(config, resolution=64 if variant == "if_xl" else 128, num_frames=80)
        if variant == "if_xl":
            set_imported(config)
            config.model.temporal_depth = 1  # 5.9B parameters in all; the notes report 5.5B
        else:
            config.model.temporal_depth = 6  # 4.8B parameters in all; the notes report 5.5B
            config.diffusion.log_snr_shift = -5.8  # resolution_shift(128, 128, 80)
        config.mesh.fsdp = 16
        config.train.frozen_dtype = "bfloat16"
        config.train.batch_size = 256
        config.train.num_steps = 300_000
    return config


def _decide_motion(config: ConfigDict) -> None:
    """Noise levels of clips, where those of single frames were inherited.

    Frames are redundant like pixels: at the noise levels of an image, the motion is seen at all
    times, and the words for it are not learnt. The law is that of `resolution_shift`, -log(frames);
    of the shifts that were tuned here, -6 for 8 frames beside -4 for one follows it, and -6 for 16
    beside -2.5 asks for more. "balanced" weights leave out just the levels that it adds.
    """
    if config.diffusion.schedule == "cosine":
        config.diffusion.shift_by_frames = True
        if config.diffusion.weighting == "balanced":
            config.diffusion.weighting = "plain"

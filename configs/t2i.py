"""Stage `t2i`: the text-to-image U-Net at the base resolution, on single frames of clips.

    python -m lumiere_jax.main --config=configs/t2i.py:tiny --workdir=runs/t2i

`full` has the paper's size; `set_full_scale` (lumiere_jax/cascade/config.py) has its recipe and the
reasons. What it is the image network of is videos, so it learns from both: pictures, whose captions
know far more of the world than those of videos, and single frames, as soft and as compressed as
what `stunet` will see (`--config.data.folder=FOLDER` holds `images/` and `videos/`; the share of
three in four is a choice, not a finding). 500,000 steps of 2048 are a fifth of Imagen's (arXiv
2205.11487, F.1), a matter of cost.

A frame of a video file is a seek and seconds of decoding, 0.26 s of a core; a record takes 0.002 s
(benchmarks/README.md). `lumiere_jax.prepare_data --config=configs/t2i.py:full
--config.data.fps=1` writes one for every second of video, which an entry of the mixture names as
{"name": "prepared", "folder": FOLDER, "fps": 1, "weight": 1}.

`tiny` is what the tests train. `small` is shipped (weights/small/README.md): on 2 CPU cores 50 min,
and single frames of 64 held-out captions then had the right colour in 100%, background in 100% and
shape in 94% by the oracle (2026-11-26).
"""

from lumiere_jax.cascade.config import (
    UNET_SIZES,
    ConfigDict,
    choose_variant,
    default_config,
    set_full_scale,
    set_pictures_and_frames,
    set_short_run,
    set_small,
)


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the variant "tiny", "small" or "full"."""
    variant = choose_variant(variant, ("tiny", "small", "full"), "configs/t2i.py")
    config = default_config("t2i")
    config.model.update(UNET_SIZES[variant])
    if variant == "tiny":
        set_short_run(config, num_steps=750, batch_size=32)
        config.data.num_frames = 1
    elif variant == "small":
        set_small(config, num_steps=1900, batch_size=48)
        config.data.num_frames = 1
        config.diffusion.log_snr_shift = -2.5
        config.diffusion.weighting = "balanced"  # shapes are a small part of the plain error
    else:
        set_full_scale(config, resolution=128, num_frames=1)
        set_pictures_and_frames(config)
        config.diffusion.log_snr_shift = -1.4  # 2 log(64 / 128), simple diffusion (2301.11093)
        config.mesh.fsdp = 16
        config.train.batch_size = 2048
        config.train.num_steps = 500_000
    return config

"""Stage `ssr`: the super-resolution network for videos, inflated from a `t2i_ssr` run.

    python -m lumiere_jax.main --config=configs/ssr.py:tiny --workdir=runs/ssr \
        --config.init_from=runs/t2i_ssr

Trained on space-time crops of `ssr.window` frames, sampled at full size and any length by temporal
MultiDiffusion. The recipe of `full` is that of `t2i_ssr`, which says why; only temporal parameters
train, so what a window of 8 frames needs is learnt in fewer steps. `tiny` refines 16×16 to 64×64,
`small` 32×32 to 128×128; `full` has the paper's size. `from=WORKDIR` inflates any `t2i_ssr`
checkpoint, trained here or imported (docs/open_weights.md), and takes its sizes, schedule and text
encoder from there.
"""

from lumiere_jax.cascade.config import (
    SSR_SIZES,
    ConfigDict,
    choose_variant,
    default_config,
    set_full_scale,
    set_short_run,
    set_small,
)
from lumiere_jax.checkpoints.inheritance import inherit, source_of


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the variant "tiny", "small", "full" or "from=WORKDIR"."""
    config = default_config("ssr")
    if source := source_of(variant):
        inherit(config, source)
        return config
    variant = choose_variant(variant, ("tiny", "small", "full"), "configs/ssr.py")
    config.model.update(SSR_SIZES[variant])
    config.model.inflated = True
    if variant == "tiny":
        set_short_run(config, num_steps=80, batch_size=8)
        config.data.num_frames = 8
        config.data.resolution = 64
        config.diffusion.log_snr_shift = -1.0  # the low-resolution clip decides the rest
        config.ssr.update({"factor": 4, "crop": 32, "window": 4})
    elif variant == "small":
        set_small(config, num_steps=200, batch_size=4)
        config.data.resolution = 128
        config.diffusion.log_snr_shift = -1.0
        config.ssr.update({"factor": 4, "crop": 64})
    else:
        set_full_scale(config, resolution=1024, num_frames=8)  # crops of whole windows
        config.ssr.noise_on = "low_resolution"
        config.train.frozen_dtype = "bfloat16"
        config.train.batch_size = 256
        config.train.num_steps = 200_000
    config.sampling.num_steps = 50 if variant == "full" else 10
    config.sampling.guidance_scale = 1.0
    return config

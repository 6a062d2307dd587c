"""Stage `t2i_ssr`: the super-resolution network on images, before its inflation.

    python -m lumiere_jax.main --config=configs/t2i_ssr.py:tiny --workdir=runs/t2i_ssr

`tiny` refines 16×16 to 64×64; `full` has the paper's size: 128×128 to 1024×1024.
"""

from lumiere_jax.config import (
    SSR_SIZES,
    ConfigDict,
    choose_variant,
    default_config,
    set_full_scale,
    set_short_run,
)


def get_config(variant: str | None = None) -> ConfigDict:
    """Returns the variant "tiny" or "full"."""
    variant = choose_variant(variant, ("tiny", "full"), "configs/t2i_ssr.py")
    config = default_config("t2i_ssr")
    config.model.update(SSR_SIZES[variant])
    config.model.inflated = False
    if variant == "tiny":
        set_short_run(config, num_steps=120, batch_size=16)
        config.data.num_frames = 1
        config.data.resolution = 64
        config.diffusion.log_snr_shift = -1.0  # the low-resolution clip decides the rest
        config.ssr.update({"factor": 4, "crop": 32, "window": 4})
    else:
        set_full_scale(config, resolution=1024, num_frames=1)
        config.mesh.fsdp = 16
        config.train.batch_size = 512
        config.train.num_steps = 500_000
    config.sampling.num_steps = 10 if variant == "tiny" else 50
    config.sampling.guidance_scale = 1.0
    return config

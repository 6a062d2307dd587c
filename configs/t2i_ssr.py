"""Stage `t2i_ssr`: the super-resolution network on images, before its inflation.

    python -m lumiere_jax.main --config=configs/t2i_ssr.py:tiny --workdir=runs/t2i_ssr

`tiny` refines 16×16 to 64×64, `small` 32×32 to 128×128, and `full`, of the paper's size, 128×128 to
1024×1024; `set_full_scale` (lumiere_jax/cascade/config.py) has the recipe that all full configs
share. Its schedule has no shift: the low-resolution picture decides all that is larger than 8
pixels, and the noise at log-SNR 0 hides what is smaller. Augmentation noise is added before
enlarging: a level of 0.1 then hides 20 grey levels of each of the base's pixels, which is what the
base is off by; added after enlarging 8 times, averaging leaves 4.2 of it. It trains on crops of 256
pixels, cut on the host, of pictures and frames that are 1024 or larger (Imagen, arXiv 2205.11487,
trained its last stage on crops as well), and needs no guidance.
"""

from lumiere_jax.cascade.config import (
    SSR_SIZES,
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
    variant = choose_variant(variant, ("tiny", "small", "full"), "configs/t2i_ssr.py")
    config = default_config("t2i_ssr")
    config.model.update(SSR_SIZES[variant])
    config.model.inflated = False
    if variant == "tiny":
        set_short_run(config, num_steps=120, batch_size=16)
        config.data.num_frames = 1
        config.data.resolution = 64
        config.diffusion.log_snr_shift = -1.0  # the low-resolution clip decides the rest
        config.ssr.update({"factor": 4, "crop": 32, "window": 4})
    elif variant == "small":
        set_small(config, num_steps=600, batch_size=16)
        config.data.num_frames = 1
        config.data.resolution = 128
        config.diffusion.log_snr_shift = -1.0
        config.ssr.update({"factor": 4, "crop": 64})
    else:
        set_full_scale(config, resolution=1024, num_frames=1)
        set_pictures_and_frames(config)
        config.ssr.noise_on = "low_resolution"
        config.mesh.fsdp = 16
        config.train.batch_size = 512
        config.train.num_steps = 500_000
    config.sampling.num_steps = 50 if variant == "full" else 10
    config.sampling.guidance_scale = 1.0
    return config

"""Stage `stunet_conditional`: the space-time U-Net that is shown some pixels of its clip.

    python -m lumiere_jax.main --config=configs/stunet_conditional.py:tiny \
        --workdir=runs/conditional --config.init_from=runs/stunet

One checkpoint serves image-to-video, inpainting, outpainting, cinemagraphs and going on with a
video. It starts from a run of the stage `stunet`, whose sizes it shares; the input convolution and
the temporal parameters train. `masks` says how often each task comes.
"""

from lumiere_jax.cascade.config import (
    UNET_SIZES,
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
    config = default_config("stunet_conditional")
    if source := source_of(variant):
        inherit(config, source)
        return config
    variant = choose_variant(variant, ("tiny", "small", "full"), "configs/stunet_conditional.py")
    config.model.update(UNET_SIZES[variant])
    config.model.temporal_initialization = "nearest"
    config.model.temporal_conditioning = True
    config.model.temporal_text = True
    if variant == "tiny":
        set_short_run(config, num_steps=1000, batch_size=8)
        config.model.temporal_depth = 1
        config.diffusion.log_snr_shift = -6.0
        config.optimizer.learning_rate = 3e-3
    elif variant == "small":
        set_small(config, num_steps=1500, batch_size=8)
        config.model.temporal_depth = 1
        config.diffusion.log_snr_shift = -6.0
        config.optimizer.learning_rate = 2e-3
    else:
        set_full_scale(config, resolution=128, num_frames=80)
        config.model.temporal_depth = 6
        config.diffusion.log_snr_shift = -5.8  # as `stunet`
        config.mesh.fsdp = 16
        config.train.frozen_dtype = "bfloat16"
        config.train.batch_size = 256
        config.train.num_steps = 100_000
    return config

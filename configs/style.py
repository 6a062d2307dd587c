"""Stage `style`: the image network of a run of the stage `t2i`, trained on a few pictures.

    python -m lumiere_jax.main --config=configs/style.py:tiny --workdir=runs/style \
        --config.init_from=runs/t2i --config.data.folder=PICTURES

PICTURES holds one picture of the style or a few, with captions beside them. `style.rank` trains
low-rank changes (LoRA) in place of all weights. Sampling takes the result with
`--style_checkpoint=runs/style --alpha=0.8`.
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
    config = default_config("style")
    if source := source_of(variant):
        inherit(config, source)
        _set_pictures(config)
        return config
    variant = choose_variant(variant, ("tiny", "small", "full"), "configs/style.py")
    config.model.update(UNET_SIZES[variant])
    if variant == "tiny":
        set_short_run(config, num_steps=200, batch_size=4)
        config.optimizer.learning_rate = 1e-3
    elif variant == "small":
        set_small(config, num_steps=200, batch_size=8)
        config.data.mixture = ()
        config.optimizer.learning_rate = 1e-3
        config.style.rank = 8
    else:
        set_full_scale(config, resolution=128, num_frames=1)
        config.diffusion.log_snr_shift = -1.4
        config.mesh.fsdp = 16
        config.train.batch_size = 16
        config.train.num_steps = 1000
        config.style.rank = 64
    _set_pictures(config)
    return config


def _set_pictures(config: ConfigDict) -> None:
    config.data.name = "image_folder"
    config.data.num_frames = 1
    config.data.allow_small = True
    config.data.flip = False
    config.train.eval_every = 0
    config.train.sample_every = 0
    config.optimizer.warmup_steps = 10
    config.optimizer.ema_decay = 0.98

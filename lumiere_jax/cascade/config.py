"""The fields that every config has, with their meaning and neutral defaults.

A file in `configs/` starts from `default_config`, and sets what its stage needs. Any field can be
overridden on the command line, as in `--config.train.batch_size=8`.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from lumiere_jax.runtime.errors import UserError

ConfigDict = ml_collections.ConfigDict

UNET_SIZES = {
    "tiny": {
        "widths": (16, 32, 64),
        "layers_per_level": 1,
        "attention_levels": (False, False, True),
        "embedding_features": 128,
        "head_dim": 32,
        "text_features": 64,
        "pooling_heads": 4,
        "groups": 8,
    },
    "small": {
        "widths": (64, 128, 192),
        "patch": 2,
        "layers_per_level": 1,
        "attention_levels": (False, True, True),
        "embedding_features": 256,
        "head_dim": 32,
        "text_features": 128,
        "pooling_heads": 8,
        "groups": 8,
    },
    "full": {
        "widths": (512, 1024, 1536, 2048),
        "layers_per_level": 3,
        "attention_levels": (False, False, True, True),
        "head_dim": 64,
        "text_features": 2048,
        "pooling_heads": 64,
        "groups": 32,
        "remat": "convolutions",
    },
}
"""Sizes that the text-to-image U-Net and its inflation share, for `config.model`."""

IF_XL = {
    "widths": (704, 1408, 2112, 2816),
    "layers_per_level": 3,
    "attention_levels": (False, True, True, True),
    "embedding_features": 2816,
    "out_channels": 6,
    "head_dim": 64,
    "text_features": 2816,
    "pooling_heads": 64,
    "groups": 32,
    "activation": "gelu",
    "text_norm": "group",
    "remat": "convolutions",
}
"""DeepFloyd IF's stage I XL, for `config.model`; 4.3B parameters."""

SSR_SIZES = {
    "tiny": {
        "widths": (32, 64, 64),
        "num_blocks": (1, 1, 1),
        "strides": (2, 2, 2),
        "middle_blocks": 1,
        "embedding_features": 64,
        "head_dim": 32,
        "groups": 8,
    },
    "small": {
        "widths": (32, 64, 128),
        "num_blocks": (1, 1, 2),
        "strides": (2, 2, 2),
        "middle_blocks": 1,
        "embedding_features": 128,
        "head_dim": 32,
        "groups": 8,
    },
    "full": {
        "widths": (128, 256, 512, 1536),
        "num_blocks": (2, 4, 8, 8),
        "strides": (2, 2, 2, 2),
        "middle_blocks": 2,
        "embedding_features": 512,
        "head_dim": 64,
        "groups": 32,
        "remat": "convolutions",
    },
}
"""Sizes that the super-resolution network and its inflation share, for `config.model`."""


NETWORKS = {
    "t2i": "unet",
    "stunet": "stunet",
    "t2i_ssr": "ssr",
    "ssr": "ssr",
    "stunet_conditional": "stunet",
    "style": "unet",
}
"""The network that each stage has by default."""


def default_config(stage: str) -> ConfigDict:
    """The common defaults of all stages.

    Args:
      stage: "t2i", "stunet", "t2i_ssr", "ssr", "stunet_conditional" or "style".

    Returns:
      A config; `model` holds only the name of the network, its sizes are the stage's to say.
    """
    config = ConfigDict()
    config.stage = stage
    config.seed = 0
    config.imported_from = ""  # directory of the weights of another project, see import_weights
    config.init_from = ""  # workdir of the stage before, or of this one, to train it further
    config.allow_untrained_start = False  # start an inflated stage without `init_from`
    config.model = ConfigDict({"name": NETWORKS[stage], "dtype": "float32"})
    config.text = ConfigDict(
        {
            "name": "hashed",  # or "t5"
            "dim": 64,
            "max_length": 24,  # tokens of a prompt
            "folder": "",  # t5: weights and tokenizer, as Hugging Face lays them out
            "dtype": "bfloat16",  # t5: or "float32"
            "weights": "",  # t5: their fingerprint, which training fills in
            "lowercase": False,  # t5: prompts in lower case, without spaces around them
            "keep_padding": False,  # t5: networks see the embeddings of padding, as DeepFloyd IF
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "space": 1})  # -1: the devices that are left
    config.data = ConfigDict(
        {
            "name": "moving_shapes",  # or another of data/sources.py
            "num_frames": 8,
            "resolution": 16,
            "fps": 8,
            "max_objects": 1,  # moving_shapes
            "textured_probability": 0.5,  # moving_shapes
            "size": 1_000_000,  # moving_shapes: clips of an epoch
            "segments": 1,  # moving_shapes: a clip is one of so many parts of an object's path
            "folder": "",  # of all other sources
            "captions": "",  # folders: CSV or JSONL; empty looks into the folder
            "clip": "random",  # of longer videos: "random" or "center" part
            "fold": 1,  # ucf101: 1, 2 or 3
            "mixture": (),  # mixture: dicts of name, weight and what differs from these fields
            "flip": False,  # mirror every second clip whose caption says nothing of a side
            "allow_small": False,  # a source smaller than a batch repeats its clips
            "allow_other": False,  # resume although the source is not the one of the checkpoint
            "fingerprint": "",  # of the source; training notes it
            "num_threads": 1,
        }
    )
    config.diffusion = ConfigDict(
        {
            "prediction": "v",  # "v", "epsilon" or "x0"
            "weighting": "plain",  # or "sigmoid", "balanced"
            "schedule": "cosine",  # or "discrete": the 1000 steps of DeepFloyd IF
            "learned_variance": False,  # the network also predicts a variance; "discrete" only
            "log_snr_shift": 0.0,  # below 0: more noise; falls with resolution and frames
            "text_dropout": 0.1,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",  # or "adafactor", "muon"
            "learning_rate": 1e-4,
            "warmup_steps": 10_000,
            "decay": "constant",  # or "cosine", to zero at the last step
            "weight_decay": 0.0,
            "b2": 0.99,
            "gradient_clip": 1.0,
            "ema_decay": 0.9999,
        }
    )
    config.train = ConfigDict(
        {
            "batch_size": 16,
            "num_steps": 1000,
            "trainable": "all" if stage in ("t2i", "t2i_ssr", "style") else "temporal",
            "frozen_dtype": "float32",  # or "bfloat16", which takes half of the memory
            "log_every": 20,
            "checkpoint_every": 500,
            "keep_last": 2,
            "keep_best": 1,
            "eval_every": 500,  # 0 for never
            "eval_batches": 4,
            "sample_every": 500,  # 0 for never
            "hang_timeout": 1800.0,  # seconds without a step until a job of many hosts gives up
        }
    )
    config.sampling = ConfigDict(
        {
            "sampler": "ddim",  # "ddim", "ancestral", "dpmpp_2m"; "ddpm" with a learned variance
            "num_steps": 50,
            "guidance_scale": 4.0,
            "threshold_percentile": 99.5,
            "threshold_max": 0.0,  # the most that thresholding divides by; 0 for no limit
            "time_power": 1.0,  # even times to this power; above 1, more steps near clean data
            "timestep_spacing": "leading",  # or "trailing"; of schedule "discrete"
            "prompts": (
                "a large red circle moving right on a plain black background",
                "a small blue square moving up on a plain white background",
            ),
        }
    )
    if stage == "style":
        config.style = ConfigDict({"rank": 0})  # of LoRA; 0 trains all weights
    if stage == "stunet_conditional":
        config.model.in_channels = 7  # noisy video, masked video, mask
        config.masks = ConfigDict(  # how often each task of data/masks.py comes
            {
                "first_frame": 0.3,
                "beginning": 0.1,
                "boxes": 0.15,
                "brushes": 0.15,
                "outpainting": 0.1,
                "cinemagraph": 0.1,
                "nothing": 0.1,
            }
        )
    if stage in ("t2i_ssr", "ssr"):
        config.ssr = ConfigDict(
            {
                "factor": 8,
                "crop": 256,  # pixels a side of a training crop, at the high resolution
                "window": 8,  # frames the network sees at once
                "overlap": 2,  # frames that neighbouring windows share
                "weights": "uniform",  # or "linear"
                "chunk": 1,  # windows predicted at once at sampling
                "upsampling": "bilinear",  # "bicubic", or "bilinear_corners" (DeepFloyd IF)
                "augmentation": 0.1,  # noise level of the low-resolution clip at sampling
            }
        )
    return config


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config with the fields that did not exist yet when it was saved, at their defaults.

    Fields of the network have their defaults there.
    """
    if saved.get("stage") not in NETWORKS:
        return dict(saved)

    def merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        merged = dict(defaults) | dict(given)
        for name, value in defaults.items():
            if isinstance(value, Mapping) and isinstance(merged[name], Mapping):
                merged[name] = merge(value, merged[name])
        return merged

    defaults = default_config(saved["stage"]).to_dict()
    defaults["model"] = {}
    return merge(defaults, saved)


def set_full_scale(config: ConfigDict, *, resolution: int, num_frames: int) -> None:
    """What all stages share at the paper's scale: T5 XXL, bfloat16, real videos."""
    config.model.dtype = "bfloat16"
    config.text.name = "t5"
    config.text.dim = 4096
    config.text.max_length = 128
    config.data.name = "video_folder"
    config.data.flip = True
    config.data.num_frames = num_frames
    config.data.resolution = resolution
    config.data.fps = 16


def set_imported(config: ConfigDict) -> None:
    """How DeepFloyd IF's stage I was trained, which a frozen one dictates, and is sampled."""
    config.text.update({"max_length": 77, "lowercase": True, "keep_padding": True})
    config.diffusion.prediction = "epsilon"
    config.diffusion.schedule = "discrete"
    config.diffusion.learned_variance = True
    config.sampling.sampler = "ddpm"
    config.sampling.num_steps = 100
    config.sampling.guidance_scale = 7.0
    config.sampling.threshold_percentile = 95.0
    config.sampling.threshold_max = 1.5


def set_short_run(config: ConfigDict, *, num_steps: int, batch_size: int) -> None:
    """What all tiny variants share: clips without texture, and a short run at a high rate.

    A narrow network cannot carry all of the noise that v asks for, so it predicts x0; and so few
    pixels are decided early, so the noise levels are shifted far towards noise.
    """
    config.data.textured_probability = 0.0
    config.text.dim = 128  # above the number of words, so that each can be told from all others
    config.diffusion.prediction = "x0"
    config.diffusion.log_snr_shift = -4.0
    config.sampling.num_steps = 20
    config.sampling.guidance_scale = 1.5  # more of it pushes colours out of range
    config.train.num_steps = num_steps
    config.train.batch_size = batch_size
    config.optimizer.name = "muon"  # AdamW needs many times the clips to tie motion to its words
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 30
    config.optimizer.decay = "cosine"
    config.optimizer.ema_decay = 0.98


def set_small(config: ConfigDict, *, num_steps: int, batch_size: int) -> None:
    """What all small variants share: the weights that travel with the project (weights/small).

    Shapes and handwritten digits, half and half, in clips of 2 s; otherwise as `set_short_run`.
    """
    set_short_run(config, num_steps=num_steps, batch_size=batch_size)
    config.data.name = "mixture"
    config.data.mixture = (
        {"name": "moving_shapes", "weight": 1},
        {"name": "moving_digits", "weight": 1, "max_objects": 2},
    )
    config.data.textured_probability = 0.5
    config.data.num_frames = 16
    config.data.resolution = 32
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.ema_decay = 0.995
    config.sampling.prompts = (
        "a large red circle moving right on a plain black background",
        "a small blue cross moving up on a striped white background",
        "digit 7 is moving left and right",
        "digit 3 is moving up and down and digit 8 is moving left and right",
    )


def choose_variant(variant: str | None, variants: tuple[str, ...], file: str) -> str:
    """Checks the part after the colon of `--config=FILE:VARIANT`; the first is the default.

    Raises:
      UserError: if there is no such variant.
    """
    variant = variant or variants[0]
    if variant not in variants:
        raise UserError(f"{file} has no variant {variant!r}; choose from {', '.join(variants)}.")
    return variant

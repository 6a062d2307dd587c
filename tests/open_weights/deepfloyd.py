"""Tiny directories of DeepFloyd IF's stages, written by `diffusers` with random weights."""

from pathlib import Path

import diffusers
import torch
import transformers

from tests.models.diffusers_parity import randomize

SIZE = 32
TEXT_DIM = 32
TEXT_LENGTH = 7
COMMON = dict(
    sample_size=SIZE, layers_per_block=1, block_out_channels=(32, 64), attention_head_dim=8,
    cross_attention_dim=32, encoder_hid_dim=TEXT_DIM, addition_embed_type="text",
    addition_embed_type_num_heads=2, act_fn="gelu", time_embedding_act_fn="gelu",
    cross_attention_norm="group_norm",
    down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    resnet_time_scale_shift="scale_shift", resnet_skip_time_act=True, out_channels=6,
)  # fmt: skip
STAGE_ONE = COMMON | {"in_channels": 3}
# As scripts/convert_if.py of diffusers describes stage II.
STAGE_TWO = COMMON | {
    "in_channels": 6,
    "class_embed_type": "timestep",
    "layers_per_block": (1, 2),
    "time_embedding_dim": 64,
    "only_cross_attention": True,
    "resnet_out_scale_factor": 1 / 0.7071,
    "mid_block_scale_factor": 1 / 0.7071,
}
PARTS = dict(tokenizer=None, text_encoder=None, safety_checker=None, feature_extractor=None)
PARTS |= dict(watermarker=None, requires_safety_checker=False)


def scheduler(sample_max_value: float) -> diffusers.DDPMScheduler:
    """As scripts/convert_if.py of diffusers has it."""
    return diffusers.DDPMScheduler(
        variance_type="learned_range", beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon", thresholding=True, dynamic_thresholding_ratio=0.95,
        sample_max_value=sample_max_value,
    )  # fmt: skip


def stage_one(**fields) -> diffusers.IFPipeline:
    """Stage I, with random weights."""
    unet = diffusers.UNet2DConditionModel(**STAGE_ONE | fields).eval()
    randomize(unet, seed=1)
    return diffusers.IFPipeline(unet=unet, scheduler=scheduler(1.5), **PARTS)


def stage_two(**fields) -> diffusers.IFSuperResolutionPipeline:
    """Stage II, with random weights."""
    unet = diffusers.UNet2DConditionModel(**STAGE_TWO | fields).eval()
    randomize(unet, seed=2)
    noising = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return diffusers.IFSuperResolutionPipeline(
        unet=unet, scheduler=scheduler(1.0), image_noising_scheduler=noising, **PARTS
    )


def embeddings(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of prompts and of the null text, some of large mean as T5's are."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(2, batch, TEXT_LENGTH, TEXT_DIM, generator=generator)
    text[..., 3] += 30.0
    return text[0], text[1]


def write_text_encoder(folder: Path) -> torch.nn.Module:
    """A tiny T5 v1.1 encoder whose tokens are bytes; returns the torch network."""
    config = transformers.T5Config(
        vocab_size=384, d_model=TEXT_DIM, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tokenizer_class="ByT5Tokenizer",
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = transformers.T5EncoderModel(config).eval()
    encoder.save_pretrained(folder)
    return encoder

"""The config of a stage: every field, with its type, meaning and neutral default.

A file in `configs/` starts from `default_config`, and sets what its stage needs. Any field can be
overridden on the command line, as in `--config.train.batch_size=8`. What comes of it is checked
once, by `StageConfig.parse`, and is typed and frozen from there on.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict, FrozenConfigDict

from lumiere_jax.data.config import DataConfig
from lumiere_jax.data.masks import MaskMix
from lumiere_jax.diffusion.distillation import Method, StudentWeighting
from lumiere_jax.diffusion.guidance_names import GuidanceName
from lumiere_jax.diffusion.losses import Weighting
from lumiere_jax.diffusion.multidiffusion import windows
from lumiere_jax.diffusion.parameterization import Kind
from lumiere_jax.diffusion.sampler_names import SamplerName
from lumiere_jax.diffusion.schedule import resolution_shift
from lumiere_jax.runtime.config_section import ConfigSection
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import MeshConfig
from lumiere_jax.text import TextConfig

UNET_SIZES = {
    "tiny": {
        "widths": (16, 32, 64), "layers_per_level": 1, "attention_levels": (False, False, True),
        "embedding_features": 128, "head_dim": 32, "text_features": 64, "pooling_heads": 4,
        "groups": 8,
    },
    "small": {
        "widths": (64, 128, 192), "patch": 2, "layers_per_level": 1,
        "attention_levels": (False, True, True), "embedding_features": 256, "head_dim": 32,
        "text_features": 128, "pooling_heads": 8, "groups": 8,
    },
    "full": {
        "widths": (512, 1024, 1536, 2048), "layers_per_level": 3,
        "attention_levels": (False, False, True, True), "head_dim": 64, "text_features": 2048,
        "pooling_heads": 64, "groups": 32, "remat": "convolutions",
    },
}  # fmt: skip
"""Sizes that the text-to-image U-Net and its inflation share, for `config.model`."""

IF_XL = {
    "widths": (704, 1408, 2112, 2816), "layers_per_level": 3,
    "attention_levels": (False, True, True, True), "embedding_features": 2816, "out_channels": 6,
    "head_dim": 64, "text_features": 2816, "pooling_heads": 64, "groups": 32, "activation": "gelu",
    "text_norm": "group", "remat": "convolutions",
}  # fmt: skip
"""DeepFloyd IF's stage I XL, for `config.model`; 4.3B parameters."""

SSR_SIZES = {
    "tiny": {
        "widths": (32, 64, 64), "num_blocks": (1, 1, 1), "strides": (2, 2, 2), "middle_blocks": 1,
        "embedding_features": 64, "head_dim": 32, "groups": 8,
    },
    "small": {
        "widths": (32, 64, 128), "num_blocks": (1, 1, 2), "strides": (2, 2, 2), "middle_blocks": 1,
        "embedding_features": 128, "head_dim": 32, "groups": 8,
    },
    "full": {
        "widths": (128, 256, 512, 1536), "num_blocks": (2, 4, 8, 8), "strides": (2, 2, 2, 2),
        "middle_blocks": 2, "embedding_features": 512, "head_dim": 64, "groups": 32,
        "remat": "convolutions",
    },
}  # fmt: skip
"""Sizes that the super-resolution network and its inflation share, for `config.model`."""


StageName = Literal["t2i", "stunet", "t2i_ssr", "ssr", "stunet_conditional", "style"]

STAGES: dict[str, str | None] = {
    "t2i": None, "stunet": "t2i", "t2i_ssr": None, "ssr": "t2i_ssr",
    "stunet_conditional": "stunet", "style": "t2i",
}  # fmt: skip
"""Every stage, and the one that it is initialized from."""

IMAGE_STAGES = ("t2i", "style")
"""Stages that make single images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig(ConfigSection):
    """What the network predicts of noisy clips, and how errors count."""

    prediction: Kind = "v"
    weighting: Weighting = "plain"
    schedule: Literal["cosine", "discrete"] = "cosine"  # "discrete": DeepFloyd IF's 1000 steps
    learned_variance: bool = False  # the network also predicts a variance; "discrete" only
    log_snr_shift: float = 0.0  # below 0: more noise; falls with resolution and frames
    interpolated_shift: bool = False  # whether the shift fades towards clean data
    shift_by_frames: bool = False  # the shift is of one frame; that of data.num_frames is added
    text_dropout: float = 0.1  # share of training clips without their text

    def shift(self, num_frames: int) -> float:
        """The log-SNR shift of clips of so many frames."""
        frames = num_frames if self.shift_by_frames else 1
        return self.log_snr_shift + resolution_shift(1, 1, frames, reference=(1, 1, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ConfigSection):
    """See `training.optimizer`."""

    name: Literal["adamw", "adafactor", "muon"] = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 10_000
    decay: Literal["constant", "cosine"] = "constant"  # "cosine": to zero at the last step
    weight_decay: float = 0.0
    b2: float = 0.99
    gradient_clip: float = 1.0
    ema_decay: float = 0.9999


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(ConfigSection):
    """A run: its length, what trains, and how often something is written."""

    batch_size: int = 16  # clips a step, on all devices together
    num_steps: int = 1000
    trainable: Literal["all", "temporal"] = "all"
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"  # "bfloat16" takes half the memory
    log_every: int = 20
    checkpoint_every: int = 500
    keep_last: int = 2
    keep_best: int = 1
    ema_snapshots: int = 0  # of averages, over the run, to choose an EMA after it; 0 for none
    eval_every: int = 500  # 0 for never
    eval_batches: int = 4
    sample_every: int = 500  # 0 for never
    checkpoint_minutes: float = 0.0  # above 0, a checkpoint is due by the clock, not by steps
    eval_minutes: float = 0.0  # likewise, if eval_every is above 0
    sample_minutes: float = 0.0  # likewise, if sample_every is above 0
    hang_timeout: float = 1800.0  # seconds without a step until a job of many hosts gives up


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig(ConfigSection):
    """How the stage is sampled unless a request says otherwise, see `SamplingOptions`."""

    sampler: SamplerName = "ddim"  # "ddpm": learned variance
    num_steps: int = 50
    guidance_scale: float = 4.0
    guidance: GuidanceName = "cfg"
    guidance_parallel: float = 0.0  # these three: of "apg"
    guidance_limit: float = 0.0
    guidance_momentum: float = -0.5
    guidance_zero_until: float = 0.96  # of "cfg_zero"
    guidance_from: float = 1.0  # time at which guidance begins; 1 is noise
    guidance_to: float = 0.0  # and ends
    guidance_every: int = 1  # in every n-th step the network is asked without the text
    threshold_percentile: float = 99.5
    threshold_max: float = 0.0  # the most that thresholding divides by; 0 for no limit
    last_log_snr: float = 0.0  # of the last of steps even in log-SNR; 0: even in time
    time_power: float = 1.0  # even positions to this power; above 1, more near clean data
    timestep_spacing: Literal["leading", "trailing"] = "leading"  # of schedule "discrete"
    prompts: tuple[str, ...] = (  # of a training run's samples; () for held-out clips' captions
        "a large red circle moving right on a plain black background",
        "a small blue square moving up on a plain white background",
    )

    @property
    def num_samples(self) -> int:
        """Samples of a training run."""
        return len(self.prompts) or 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleConfig(ConfigSection):
    """Of the stage `style`."""

    rank: int = 0  # of LoRA; 0 trains all weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperResolutionConfig(ConfigSection):
    """Of the stages `t2i_ssr` and `ssr`."""

    factor: int = 8
    crop: int = 256  # pixels a side of a training crop, at the high resolution
    window: int = 8  # frames the network sees at once
    overlap: int = 2  # frames that neighbouring windows share
    weights: Literal["uniform", "linear"] = "uniform"  # of a window's frames
    chunk: int = 1  # windows predicted at once at sampling
    upsampling: Literal["bilinear", "bicubic", "bilinear_corners"] = "bilinear"  # IF: the last
    augmentation: float = 0.1  # noise level of the low-resolution clip at sampling
    noise_on: Literal["upsampled", "low_resolution"] = "upsampled"  # which of them gets that noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationConfig(ConfigSection):
    """Of a student, see `configs/distill.py`."""

    method: Method = "progressive"  # "parallel": one round, each call predicts several steps
    start_steps: int = 32  # of the first teacher
    steps: tuple[int, ...] = (16, 8, 4)  # of the student, after each round
    guidance_scale: float = 1.0  # of the first teacher
    weighting: StudentWeighting = "truncated_snr"

    @property
    def steps_at_once(self) -> int:
        """Steps of the teacher that a call of the student predicts one by one."""
        if self.method != "parallel":
            return 1
        return max(self.start_steps // max(self.steps[0], 1), 1)  # bad ones are refused later


MASKS = {
    "first_frame": 0.3, "beginning": 0.1, "boxes": 0.15, "brushes": 0.15, "outpainting": 0.1,
    "cinemagraph": 0.1, "nothing": 0.1,
}  # fmt: skip
"""How often each task of `data.masks` comes, for `config.masks`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig(ConfigSection):
    """The whole config of a stage. `model` has the fields of the network's class."""

    stage: StageName
    seed: int = 0
    imported_from: str = ""  # directory of the weights of another project, see import_weights
    init_from: str = ""  # workdir of the stage before, or of this one, to train it further
    allow_untrained_start: bool = False  # start an inflated stage without `init_from`
    model: FrozenConfigDict
    text: TextConfig = TextConfig()
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    style: StyleConfig | None = None
    masks: FrozenConfigDict | None = None
    ssr: SuperResolutionConfig | None = None
    distillation: DistillationConfig | None = None

    def __post_init__(self):
        """Raises a `UserError` that names the field, if fields do not fit one another."""
        for message in self._contradictions():
            raise UserError(message)
        if self.masks:
            MaskMix(self.masks)  # checks them
        if self.ssr:
            windows(self.data.num_frames, self.ssr.window, self.ssr.overlap)  # checks them

    def _contradictions(self) -> Iterator[str]:
        stage, train, data, ssr = self.stage, self.train, self.data, self.ssr
        diffusion, learned = self.diffusion, self.diffusion.learned_variance
        for name in _EXTRA_SECTIONS[stage]:
            if getattr(self, name) is None:
                yield f"stage {stage!r} lacks the section {name} of its config."
        if train.trainable == "temporal" and stage in (*IMAGE_STAGES, "t2i_ssr"):
            yield f"stage {stage!r} has no temporal parameters; set train.trainable to all."
        if train.num_steps < 1:
            yield f"train.num_steps={train.num_steps} must be 1 or more."
        if stage in IMAGE_STAGES and data.num_frames != 1:
            frames = f"data.num_frames={data.num_frames}"
            yield f"stage {stage!r} trains on single frames; {frames} must be 1."
        if self.style and not 0 <= self.style.rank <= 1024:
            yield f"style.rank={self.style.rank} must be between 0 (no LoRA) and 1024."
        if stage == "stunet_conditional" and self.model.get("in_channels") != 7:
            yield (
                f"model.in_channels={self.model.get('in_channels')}: stage {stage!r} takes 7, the "
                "noisy video, the known one and its mask."
            )
        if ssr and (
            ssr.crop > data.resolution or ssr.crop % ssr.factor or data.resolution % ssr.factor
        ):
            yield (
                f"ssr.crop={ssr.crop} and data.resolution={data.resolution} must be multiples of "
                f"ssr.factor={ssr.factor}, and the crop not larger than the clip."
            )
        if not 0 <= diffusion.text_dropout <= 1:
            yield f"diffusion.text_dropout={diffusion.text_dropout} must be between 0 and 1."
        if diffusion.schedule == "discrete" and diffusion.shift(data.num_frames):
            yield (
                f"diffusion.log_snr_shift={diffusion.log_snr_shift}: the steps of schedule "
                "'discrete' are fixed; set it to 0."
            )
        if diffusion.schedule == "discrete" and diffusion.weighting != "plain":
            yield (
                f"diffusion.weighting {diffusion.weighting!r} needs a schedule that is continuous "
                "in time; use plain with schedule 'discrete'."
            )
        if learned and (diffusion.schedule, diffusion.prediction) != ("discrete", "epsilon"):
            yield (
                "diffusion.learned_variance needs diffusion.schedule='discrete' and diffusion."
                f"prediction='epsilon'; got {diffusion.schedule!r} and {diffusion.prediction!r}."
            )
        channels, at_once = self.model.get("out_channels", 3), 1
        if self.distillation:
            at_once = self.distillation.steps_at_once
        if at_once > 1 and learned:
            yield "distillation.method 'parallel' predicts no variance; use 'progressive'."
        if at_once > 1 and channels != 3 * at_once:
            yield (
                f"model.out_channels={channels}: a call that predicts {at_once} steps takes "
                f"{3 * at_once}."
            )
        if at_once == 1 and channels != (6 if learned else 3):
            yield (
                f"model.out_channels={channels} with diffusion.learned_variance={learned}: a "
                "learned variance takes 3 channels beside the 3 of the prediction."
            )
        if self.sampling.sampler == "ddpm" and not learned:
            yield "sampling.sampler 'ddpm' needs diffusion.learned_variance; else use 'ancestral'."


NETWORKS = {
    "t2i": "unet", "stunet": "stunet", "t2i_ssr": "ssr", "ssr": "ssr",
    "stunet_conditional": "stunet", "style": "unet",
}  # fmt: skip
"""The network that each stage has by default."""

_EXTRA_SECTIONS: dict[str, dict[str, Mapping[str, Any]]] = {
    "t2i": {},
    "stunet": {},
    "t2i_ssr": {"ssr": SuperResolutionConfig()},
    "ssr": {"ssr": SuperResolutionConfig()},
    "stunet_conditional": {"masks": MASKS},
    "style": {"style": StyleConfig()},
}
"""The sections that a stage has beside those of all stages."""


def default_config(stage: str) -> ConfigDict:
    """The defaults of a stage, for a file of `configs/` to start from.

    `model` holds only the name of the network, its sizes are the stage's to say.
    """
    fields: dict[str, Any] = {"stage": stage, **_EXTRA_SECTIONS[stage]}
    fields["model"] = {"name": NETWORKS[stage], "dtype": "float32"}
    for field in dataclasses.fields(StageConfig):
        if field.name not in fields and field.default is not None:
            fields[field.name] = field.default
    config = ConfigDict({k: dict(v) if isinstance(v, Mapping) else v for k, v in fields.items()})
    if stage in ("stunet", "ssr", "stunet_conditional"):
        config.train.trainable = "temporal"
    if stage == "stunet_conditional":
        config.model.in_channels = 7  # noisy video, masked video, mask
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
    if saved.get("distillation"):
        defaults["distillation"] = DistillationConfig().to_dict()
    return merge(defaults, saved)


def set_full_scale(config: ConfigDict, *, resolution: int, num_frames: int) -> None:
    """What all stages share at the paper's scale, for real videos; nobody has run it yet.

    - Text: T5 v1.1 XXL, frozen, 128 tokens, dropped in 10% of clips (Imagen, arXiv 2205.11487,
      sections 2.1 and F.1).
    - Noise levels: the cosine schedule and v (Imagen Video, arXiv 2210.02303), plain weights. The
      files set a shift for what is undecided at their size; it fades towards clean data (simple
      diffusion, arXiv 2301.11093, section 3.1), since with one shift for all times only 3% of them
      have a log-SNR above 0 at 80 frames of 128×128, and 27% do so.
    - Sampling: DPM-Solver++(2M), 50 steps even in log-SNR to 10, where less than one grey level of
      noise is left: an exact denoiser then keeps 97 to 101% of real clips' variance in every band
      of frequency; DDIM with even steps, the default of small runs, keeps 0 to 92%
      (benchmarks/noise_levels.md).
    - Optimizer: AdamW at 1e-4 after 10,000 steps of warm-up, and an EMA of 0.9999 (Imagen, F.1,
      whose base had Adafactor; `optimizer.name=adafactor` moves what starts at zero as well).
    - Clips: 16 frames/s, 5 s in 80 frames (Lumiere, arXiv 2401.12945), every second one mirrored
      unless its caption names a side.
    - The clock, not steps, decides when something is written, since the time of a step is the
      slice's: a checkpoint every 20 minutes, which is what a preemption costs at most, a held-out
      loss every hour, samples every two. They show the captions of held-out clips.
    """
    config.model.dtype = "bfloat16"
    config.text.update(name="t5", dim=4096, max_length=128)
    config.data.update(name="video_folder", flip=True, fps=16)
    config.data.update(num_frames=num_frames, resolution=resolution)
    config.diffusion.interpolated_shift = True
    config.sampling.update(sampler="dpmpp_2m", num_steps=50, last_log_snr=10.0, prompts=())
    config.train.update(checkpoint_minutes=20.0, eval_minutes=60.0, sample_minutes=120.0)


def set_pictures_and_frames(config: ConfigDict) -> None:
    """Pictures with captions, three of four, from FOLDER/images, and frames from FOLDER/videos.

    FOLDER is `data.folder`.
    """
    config.data.name = "mixture"
    config.data.mixture = (
        {"name": "image_folder", "folder": "images", "weight": 3},
        {"name": "video_folder", "folder": "videos", "weight": 1},
    )


def set_imported(config: ConfigDict) -> None:
    """How DeepFloyd IF's stage I was trained, which a frozen one dictates, and is sampled."""
    config.text.update(max_length=77, lowercase=True, keep_padding=True)
    config.diffusion.update(prediction="epsilon", schedule="discrete", learned_variance=True)
    config.diffusion.interpolated_shift = False
    config.sampling.update(sampler="ddpm", num_steps=100, guidance_scale=7.0, last_log_snr=0.0)
    config.sampling.update(threshold_percentile=95.0, threshold_max=1.5)


def set_short_run(config: ConfigDict, *, num_steps: int, batch_size: int) -> None:
    """What all tiny variants share: clips without texture, and a short run at a high rate.

    A narrow network cannot carry all of the noise that v asks for, so it predicts x0; and so few
    pixels are decided early, so the noise levels are shifted far towards noise.
    """
    config.data.textured_probability = 0.0
    config.text.dim = 128  # above the number of words, so that each can be told from all others
    config.diffusion.update(prediction="x0", log_snr_shift=-4.0)
    config.sampling.num_steps = 20
    config.sampling.guidance_scale = 1.5  # more of it pushes colours out of range
    config.train.update(num_steps=num_steps, batch_size=batch_size)
    config.optimizer.name = "muon"  # AdamW needs many times the clips to tie motion to its words
    config.optimizer.update(learning_rate=5e-3, warmup_steps=30, decay="cosine", ema_decay=0.98)


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
    config.data.update(textured_probability=0.5, num_frames=16, resolution=32)
    config.optimizer.update(learning_rate=3e-3, warmup_steps=100, ema_decay=0.995)
    config.sampling.prompts = (
        "a large red circle moving right on a plain black background",
        "a small blue cross moving up on a striped white background",
        "digit 7 is moving left and right",
        "digit 3 is moving up and down and digit 8 is moving left and right",
    )


def frame_multiple(config: StageConfig) -> int:
    """A clip with fewer frames than those of training has a multiple of this number."""
    if config.stage in IMAGE_STAGES or not config.model.get("temporal_resampling", True):
        return 1
    return 2 ** (len(config.model.widths) - 1)


def check_frames(config: StageConfig, num_frames: int) -> None:
    """Raises a `UserError` if a stage makes no videos of this length."""
    trained, multiple = config.data.num_frames, frame_multiple(config)
    if num_frames < 1:
        raise UserError(f"num_frames={num_frames} must be at least 1.")
    if config.stage in IMAGE_STAGES and num_frames != 1:
        raise UserError(
            f"stage {config.stage!r} makes single images; num_frames={num_frames} must be 1."
        )
    if num_frames < trained and num_frames % multiple:
        raise UserError(
            f"num_frames={num_frames} must be a multiple of {multiple}, since it is below the "
            f"{trained} frames of a clip in training."
        )


def choose_variant(variant: str | None, variants: tuple[str, ...], file: str) -> str:
    """Checks the part after the colon of `--config=FILE:VARIANT`; the first is the default."""
    variant = variant or variants[0]
    if variant not in variants:
        raise UserError(f"{file} has no variant {variant!r}; choose from {', '.join(variants)}.")
    return variant

"""All frames at once, and the cascade that it is compared with: key frames, then those between.

The cascade is laid out as Make-A-Video's (2209.14792): every fifth frame is a key frame, and a
second network, which starts from the first and is shown key frames by channels of its own (noisy
frames, known frames, mask), makes the four between two of them. Segments share their key frames,
and each is sampled by itself. Neither network resamples time. All networks inflate the same frozen
text-to-image network; schedules, rates and batch sizes are those of the tiny configs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import training_runs as runs

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.models.parameters import count, partition
from lumiere_jax.planning.flops import training_flops
from lumiere_jax.runtime.errors import UserError

FRAMES = 16
KEY_FRAMES = (0, 5, 10, 15)
SEGMENTS = len(KEY_FRAMES) - 1
SEGMENT = KEY_FRAMES[1] + 1
DEPTH = 3  # attention layers of a block, all frames at once; 1 in each network of the cascade
TOLERANCE = 0.05


def all_frames_config(seed: int, steps: int) -> ConfigDict:
    """The space-time U-Net on all 16 frames; deep enough to have the cascade's parameters."""
    config = runs.tiny_config("stunet", seed)
    config.data.num_frames = FRAMES
    config.model.temporal_depth = DEPTH
    config.train.num_steps = steps
    return config


def key_frames_config(seed: int, steps: int) -> ConfigDict:
    """The model of key frames: clips of 4 frames, over the whole path of the object."""
    config = runs.tiny_config("stunet", seed)
    config.data.num_frames = len(KEY_FRAMES)
    config.model.temporal_resampling = False
    config.train.num_steps = steps
    return config


def between_config(seed: int, steps: int) -> ConfigDict:
    """Temporal super-resolution: segments of 6 frames, whose first and last are known."""
    config = runs.tiny_config("stunet_conditional", seed)
    config.data.num_frames, config.data.segments = SEGMENT, SEGMENTS
    config.model.temporal_resampling = False
    config.masks = ConfigDict({**dict.fromkeys(config.masks, 0.0), "between": 1.0})
    config.train.num_steps = steps
    return config


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the two ways cost.

    Attributes:
      steps: of training, of all frames, key frames, and those between.
      parameters: trained ones of each network.
      frozen: those of the text-to-image network, which they share.
      flops: of one step of each.
    """

    steps: tuple[int, int, int]
    parameters: tuple[int, int, int]
    frozen: int
    flops: tuple[int, int, int]

    @property
    def parameter_ratio(self) -> float:
        """Trained parameters of the cascade, over those of all frames at once."""
        return sum(self.parameters[1:]) / self.parameters[0]

    @property
    def compute_ratio(self) -> float:
        """Operations of training the cascade, over those of all frames at once."""
        totals = [step * flops for step, flops in zip(self.steps, self.flops, strict=True)]
        return sum(totals[1:]) / totals[0]

    def check(self) -> None:
        """Makes sure that neither way has more parameters or compute than the other.

        Raises:
          UserError: if they differ by more than 5%.
        """
        for name in ("parameter_ratio", "compute_ratio"):
            if abs(getattr(self, name) - 1) > TOLERANCE:
                raise UserError(
                    f"the {name.replace('_', ' ')} of the cascade to all frames at once is "
                    f"{getattr(self, name):.3f}, not within {TOLERANCE:.0%} of 1; choose more "
                    "--steps, or another --key_share."
                )

    def __str__(self) -> str:
        rows = zip(self.steps, self.parameters, self.flops, strict=True)
        texts = [
            f"{steps} steps of {flops / 1e9:.2f} GFLOP ({steps * flops / 1e12:.2f} TFLOP), "
            f"{parameters:,} trained parameters"
            for steps, parameters, flops in rows
        ]
        return (
            f"all frames at once: {texts[0]}; cascade: key frames {texts[1]}, and those between "
            f"{texts[2]}. The cascade has {self.parameter_ratio:.3f} times the trained parameters "
            f"and {self.compute_ratio:.3f} times the compute; {self.frozen:,} frozen parameters "
            "are shared."
        )


def budget(steps: int, key_share: float) -> Budget:
    """Steps of the cascade's networks that make its compute that of all frames at once.

    Args:
      steps: of all frames at once.
      key_share: share of the cascade's compute that its model of key frames has.
    """
    configs = [make(0, 1) for make in (all_frames_config, key_frames_config, between_config)]
    stages = [Stage.from_config(config, shapes_only=True) for config in configs]
    flops = tuple(training_flops(stage, stage.config.train.batch_size).total for stage in stages)
    shapes = [stage.param_shapes for stage in stages]
    parts = [
        partition(tree, stage.is_trainable) for tree, stage in zip(shapes, stages, strict=True)
    ]
    total = steps * flops[0]
    own = (round(key_share * total / flops[1]), round((1 - key_share) * total / flops[2]))
    return Budget(
        (steps, *(max(number, 1) for number in own)),
        tuple(count(trained) for trained, _ in parts),
        count(parts[0][1]),
        flops,
    )


def train_all_frames(folder: Path, image_run: Path, seed: int, found: Budget) -> Path:
    """Trains all frames at once, if it is missing; returns its workdir."""
    config = all_frames_config(seed, found.steps[0])
    config.init_from = str(image_run)
    return runs.train_once(config, folder / f"all_frames_{found.steps[0]}_{image_run.name}")


def train_cascade(folder: Path, image_run: Path, seed: int, found: Budget) -> tuple[Path, Path]:
    """Trains the cascade, if it is missing; returns the workdirs of its two networks."""
    config = key_frames_config(seed, found.steps[1])
    config.init_from = str(image_run)
    keys = runs.train_once(config, folder / f"key_frames_{found.steps[1]}_{image_run.name}")
    config = between_config(seed, found.steps[2])
    config.init_from = str(keys)
    name = f"between_{found.steps[2]}_after_{found.steps[1]}_{image_run.name}"
    return keys, runs.train_once(config, folder / name)


def sample_cascade(
    keys: LumierePipeline,
    between: LumierePipeline,
    captions: Sequence[str],
    seeds: Sequence[int],
    batch_size: int = 32,
) -> np.ndarray:
    """Key frames, then each segment between two of them by itself.

    Returns:
      `[captions, 16, height, width, 3]`; key frames are as the first network made them.
    """
    made = keys(captions, seeds=seeds, batch_size=batch_size)
    known, mask = known_ends(made)
    parts = between(
        np.repeat(captions, SEGMENTS).tolist(),
        seeds=[(seed * SEGMENTS + part) % 2**32 for seed in seeds for part in range(SEGMENTS)],
        known=(known, mask),
        batch_size=batch_size,
    )
    return joined(made, parts)


def known_ends(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the second network is shown.

    Args:
      keys: `[clips, 4, height, width, 3]`.

    Returns:
      Videos `[clips · 3, 6, height, width, 3]`, clip by clip, with two neighbouring key frames as
      first and last frame, and their mask.
    """
    ends = np.stack([keys[:, :-1], keys[:, 1:]], axis=2)
    ends = ends.reshape(-1, 2, *keys.shape[2:])
    known = np.zeros((len(ends), SEGMENT, *keys.shape[2:]), np.float32)
    known[:, [0, -1]] = ends
    mask = np.zeros((*known.shape[:-1], 1), bool)
    mask[:, [0, -1]] = True
    return known, mask


def joined(keys: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Clips from key frames `[clips, 4, ...]` and segments `[clips · 3, 6, ...]`."""
    parts = parts.reshape(len(keys), SEGMENTS, *parts.shape[1:])
    video = np.zeros((len(keys), FRAMES, *keys.shape[2:]), np.float32)
    for part in range(SEGMENTS):
        begin = KEY_FRAMES[part]
        video[:, begin : begin + SEGMENT] = parts[:, part]
    video[:, list(KEY_FRAMES)] = keys
    return video

"""Clips that `prepare_data` wrote, with their classes and captions, and I3D's logits of clips."""

import dataclasses
from pathlib import PurePosixPath

import numpy as np
from cached_features import CachedFeatures
from clip_figures import Clips, Logits
from etils import epath

from lumiere_jax.data.prepared_format import Index, Shard, open_reader
from lumiere_jax.data.sources import spread
from lumiere_jax.runtime.progress import Progress

BLOCK = 64  # clips whose logits are kept together


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Clips of a split, the class of each (the folder of its video), and its first caption."""

    clips: Clips
    classes: np.ndarray
    captions: list[str]


def prepared(folder: str, split: str, count: int | None = None) -> Prepared:
    """All clips of a split; or `count` of them, as `eval --task=held_out` takes them."""
    root = epath.Path(folder)
    index = Index.load(root)
    form, lengths = index.record_format(), index.shard_lengths[split]
    names = [Shard(split, number, len(lengths)).file_name for number in range(len(lengths))]
    records = [form.parse(one) for name in names for one in open_reader(root / name).read_all()]
    chosen = [records[number] for number in spread(records, count or len(records))]
    classes = [PurePosixPath(record.path).parent.name for record in chosen]
    captions = [record.captions[0] for record in chosen]
    return Prepared(np.stack([record.frames for record in chosen]), np.array(classes), captions)


def logits_of(features: CachedFeatures, label: str, clips: Clips) -> Logits:
    """Logits of clips, a block at a time."""
    progress, blocks = Progress(f"I3D of {label}", len(clips), "clips"), []
    for start in range(0, len(clips), BLOCK):
        blocks.append(features(clips[start : start + BLOCK]))
        progress.update(start + len(blocks[-1]))
    return np.concatenate(blocks)

"""Captions embedded once, instead of at every step of every training."""

from collections.abc import Iterable

import numpy as np

from lumiere_jax.data.prepared_records import Shard
from lumiere_jax.preparation.plan import Plan
from lumiere_jax.preparation.shards import Embeddings, Task
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.text import TextEncoder

_BATCH = 64


def task(plan: Plan, shard: Shard, encoder: TextEncoder | None) -> Task:
    """What a worker needs to make a shard."""
    if encoder is None:
        return Task(shard)
    captions = {caption: None for video in plan.videos(shard) for caption in video.captions}
    return Task(shard, embed(encoder, captions))


def embed(encoder: TextEncoder, captions: Iterable[str]) -> Embeddings:
    """Embeds captions, and leaves their padding out.

    Raises:
      UserError: the encoder pads elsewhere than at the end.
    """
    captions, embeddings = list(captions), {}
    for first in range(0, len(captions), _BATCH):
        batch = captions[first : first + _BATCH]
        vectors, mask = (np.asarray(array) for array in encoder(batch))
        for caption, rows, used in zip(batch, vectors, mask, strict=True):
            length = int(used.sum())
            if not used[:length].all() or rows[length:].any():
                raise UserError(
                    f"the embeddings of {encoder.fingerprint} cannot be stored: its padding is not "
                    "zeros at the end"
                )
            embeddings[caption] = rows[:length].astype(np.float32)
    return embeddings

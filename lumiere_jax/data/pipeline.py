"""From clips to training batches, on tf.data.

The data order is a function of (seed, step): a run that is resumed at a step continues bit for bit
with the batches that an uninterrupted run would have seen, and no iterator state is saved.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Num

from lumiere_jax.data.crops import RandomCrop
from lumiere_jax.data.flips import names_a_side
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.order import batch_order
from lumiere_jax.data.source import Embedding, HoldsFrames, Source, StoresText
from lumiere_jax.data.sources import TextEncoder, check_size, check_text
from lumiere_jax.runtime.devices import num_cores
from lumiere_jax.runtime.errors import UserError

tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX

Batch = dict[str, np.ndarray]
DrawMask = Callable[[tuple[int, int, int], int], Bool[np.ndarray, "time height width 1"]]
"""Which pixels are shown to a conditional stage, by a clip's (time, height, width) and its seed."""


def clip_seed(seed: int, position: int) -> int:
    """The seed of the example at a position of the order: a hash of both."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def train_batches(
    source: Source,
    text_encoder: TextEncoder,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    allow_small: bool = False,
    num_threads: int = 0,
    flip: bool = False,
    crop: RandomCrop | None = None,
    draw_mask: DrawMask | None = None,
) -> Iterator[Batch]:
    """Endless batches, prepared in the background.

    Each is a dict of video [B, T, H, W, 3], text float32 [B, L, D], text_mask bool [B, L] and, with
    `draw_mask`, mask bool [B, T, H, W, 1], where B = batch_size / process_count. Video is uint8
    where the source holds bytes, which is for a device to change to float32, and else float32.

    Args:
      source: captioned clips.
      text_encoder: of the captions.
      batch_size: global, over all processes.
      seed: of order and clips, not negative.
      start_step: number of the first batch: what it would be in a run from 0.
      process_index: of this process.
      process_count: how many processes share each batch; each gets its own slice.
      allow_small: allows a source with fewer examples than a batch, which then holds some of them
        more than once (to overfit a few clips).
      num_threads: that make clips, one clip each; 0: one for each core, or one alone where all
        clips are drawn.
      flip: mirrors every second clip, at random, whose caption says nothing of a side.
      crop: what to cut out of each clip, of super-resolution; None for all of it.
      draw_mask: of a conditional stage.

    Raises:
      UserError: fewer examples than a batch; a batch that cannot be shared evenly; or, while
        iterating, whatever the source raised.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"a global batch of {batch_size} cannot be shared by {process_count} processes: choose "
            f"a multiple of {process_count}"
        )
    if num_threads < 0:
        raise UserError(f"data.num_threads={num_threads} must be 0 (one for each core) or more")
    if not allow_small:
        check_size(source, batch_size)
    check_text(source, text_encoder)
    threads = num_threads or enough_threads(source)
    pool = ThreadPoolExecutor(threads, "clips") if threads > 1 else None
    begun = 1 + -(-(threads - 1) * process_count // batch_size)  # batches that keep them busy
    loader = _BatchLoader(source, text_encoder, seed, flip, crop, draw_mask, pool)
    order = functools.partial(
        batch_order,
        sizes=source.sizes if isinstance(source, Mixture) else (len(source),),
        slots=source.slots if isinstance(source, Mixture) else (1,),
        batch_size=batch_size,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
    )

    @tf.autograph.experimental.do_not_convert
    def load(step: tf.Tensor) -> list[tf.Tensor]:
        return tf.numpy_function(loader, order(step), loader.dtypes)

    dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    dataset = dataset.map(load, num_parallel_calls=begun, deterministic=True).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = begun + 1
    return _iterate(dataset.with_options(options), loader)


def enough_threads(source: Source) -> int:
    """One for each core, or one alone where Python draws all clips: it does one thing at a time."""
    parts = source.sources if isinstance(source, Mixture) else (source,)
    return num_cores() if any(isinstance(part, HoldsFrames) for part in parts) else 1


@dataclasses.dataclass
class _BatchLoader:
    """Makes a whole batch in one call, since every call into Python from tf.data costs time."""

    source: Source
    text_encoder: TextEncoder
    seed: int
    flip: bool
    crop: RandomCrop | None
    draw_mask: DrawMask | None
    pool: ThreadPoolExecutor | None
    error: Exception | None = None

    @property
    def dtypes(self) -> list[tf.DType]:
        """Of what a call returns."""
        video = tf.uint8 if isinstance(self.source, HoldsFrames) else tf.float32
        return [video, tf.float32, tf.bool] + ([tf.bool] if self.draw_mask else [])

    def __call__(self, indices: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            seeds = [clip_seed(self.seed, int(position)) for position in positions]
            chosen = list(zip(indices.tolist(), seeds, strict=True))
            make = self.pool.map if self.pool else map
            clips = make(self._clip, *zip(*chosen, strict=True))
            videos, captions, stored = zip(*clips, strict=True)
            batch = np.stack(videos), *self._text(captions, stored)
            if self.draw_mask is None:
                return batch
            shape = videos[0].shape[:3]
            return *batch, np.stack([self.draw_mask(shape, seed) for seed in seeds])
        except Exception as error:  # tf.data would hand on nothing but its text
            self.error = self.error or error
            raise

    def _clip(
        self, index: int, seed: int
    ) -> tuple[Num[np.ndarray, "time height width 3"], str, Embedding | None]:
        """A clip, its caption, and the caption's embedding where the source stores it."""
        source = self.source
        read = source.frames if isinstance(source, HoldsFrames) else source.example
        video, caption = read(index, seed)
        if self.flip and not names_a_side(caption):
            video = video[:, :, ::-1] if np.random.default_rng([seed, 1]).random() < 0.5 else video
        if self.crop:  # a copy, or the whole clip would stay until the batch is complete
            video = self.crop(video, seed).copy()
        if isinstance(source, StoresText | Mixture):
            return video, caption, source.stored_text(index, seed)
        return video, caption, None

    def _text(
        self, captions: Sequence[str], stored: Sequence[Embedding | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings that the source stores, and for the other captions the encoder's."""
        rows: list[Any] = list(stored)
        missing = [row for row, stored in enumerate(rows) if stored is None]
        if missing:
            encoded = self.text_encoder([captions[row] for row in missing])
            for row, *embedded in zip(missing, *encoded, strict=True):
                rows[row] = embedded
        text, mask = zip(*rows, strict=True)
        width = max(row.shape[-1] for row in text)
        return np.stack([_widened(row, width) for row in text]), np.stack(mask)


def _widened(row: np.ndarray, width: int) -> np.ndarray:
    """A row of `text.host_part` among embeddings: NaN after its first channel marks it."""
    return np.pad(row, ((0, 0), (0, width - row.shape[-1])), constant_values=np.nan)


def _iterate(dataset: tf.data.Dataset, loader: _BatchLoader) -> Iterator[Batch]:
    """Batches by name; an error of the loader is raised as it was."""
    try:
        for arrays in dataset.as_numpy_iterator():
            names = ("video", "text", "text_mask", "mask")[: len(arrays)]
            yield dict(zip(names, arrays, strict=True))
    except tf.errors.OpError as error:
        if loader.error is None:
            raise
        raise loader.error from error

"""From clips to training batches, on tf.data.

The data order is a function of (seed, step): a run that is resumed at a step goes on bit for bit
with the batches that an uninterrupted run would have seen, and no iterator state is saved.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from lumiere_jax.data.sources import Source, check_size
from lumiere_jax.errors import UserError

tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX

Batch = dict[str, np.ndarray]
TextEncoder = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]


def batch_order(
    step: int | tf.Tensor,
    *,
    num_examples: int,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which examples make up a process's share of the global batch of a step.

    Position k = step * batch_size + j of the endless sequence of examples lies in epoch
    k // num_examples, and every epoch is a pseudo-random permutation of all examples.

    Args:
        step: number of the batch, from 0.
        num_examples: examples of an epoch.
        batch_size: global, over all processes.
        seed: of the order.
        process_index: which slice of the batch; slices are contiguous.
        process_count: number of slices.

    Returns:
        Indices of the examples and positions k, both int64 [batch_size / process_count].
    """
    share = batch_size // process_count
    first = tf.cast(step, tf.int64) * batch_size + process_index * share
    positions = first + tf.range(share, dtype=tf.int64)
    epochs = positions // num_examples
    # The raw operation, since tf.random.experimental.index_shuffle of TensorFlow 2.21 pads a batch
    # of seeds along the wrong axis, and its 4 rounds leave up to half of 64 examples in place when
    # the words of the seed are small (measured; 16 rounds are as good as a uniform permutation).
    indices = tf.raw_ops.RandomIndexShuffle(
        index=positions % num_examples,
        seed=tf.stack([tf.zeros_like(epochs), tf.zeros_like(epochs) + seed, epochs], axis=1),
        max_index=tf.constant(num_examples - 1, tf.int64),
        rounds=16,
    )
    return indices, positions


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
    num_threads: int = 1,
) -> Iterator[Batch]:
    """Endless batches, from `start_step` on, prepared in the background.

    Args:
        source: captioned clips.
        text_encoder: captions -> embeddings float32 [B, L, D] and mask bool [B, L].
        batch_size: global, over all processes.
        seed: of order and clips, not negative.
        start_step: number of the first batch: what it would be in a run from 0.
        process_index: of this process.
        process_count: how many processes share each batch; each gets its own slice.
        allow_small: allows a source with fewer examples than a batch, which then holds some of
            them more than once (to overfit a few clips).
        num_threads: batches prepared at once; more than 1 is of use where clips are decoded.

    Returns:
        Iterator of dict(video float32 [B, T, H, W, 3], text float32 [B, L, D], text_mask bool
        [B, L]) with B = batch_size / process_count.

    Raises:
        UserError: fewer examples than a batch; a batch that cannot be shared evenly; or, while
            iterating, whatever the source raised.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"a global batch of {batch_size} cannot be shared by {process_count} processes: choose "
            f"a multiple of {process_count}"
        )
    if not allow_small:
        check_size(source, batch_size)
    loader = _BatchLoader(source, text_encoder, seed)

    @tf.autograph.experimental.do_not_convert
    def load(step: tf.Tensor) -> list[tf.Tensor]:
        indices, positions = batch_order(
            step,
            num_examples=len(source),
            batch_size=batch_size,
            seed=seed,
            process_index=process_index,
            process_count=process_count,
        )
        return tf.numpy_function(loader, [indices, positions], [tf.float32, tf.float32, tf.bool])

    dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    dataset = dataset.map(load, num_parallel_calls=num_threads, deterministic=True).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = num_threads + 1
    return _iterate(dataset.with_options(options), loader)


class _BatchLoader:
    """Makes a whole batch in one call, since every call into Python from tf.data costs time."""

    def __init__(self, source: Source, text_encoder: TextEncoder, seed: int):
        self._source, self._text_encoder, self._seed = source, text_encoder, seed
        self.error: Exception | None = None

    def __call__(
        self, indices: np.ndarray, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            examples = [
                self._source.example(int(index), clip_seed(self._seed, int(position)))
                for index, position in zip(indices, positions, strict=True)
            ]
            videos, captions = zip(*examples, strict=True)
            text, text_mask = self._text_encoder(list(captions))
            return np.stack(videos), np.asarray(text), np.asarray(text_mask)
        except Exception as error:  # tf.data would hand on nothing but its text
            self.error = self.error or error
            raise


def _iterate(dataset: tf.data.Dataset, loader: _BatchLoader) -> Iterator[Batch]:
    """Batches by name; an error of the loader is raised as it was."""
    try:
        for video, text, text_mask in dataset.as_numpy_iterator():
            yield {"video": video, "text": text, "text_mask": text_mask}
    except tf.errors.OpError as error:
        if loader.error is None:
            raise
        raise loader.error from error

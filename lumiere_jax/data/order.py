"""Which clips make up a batch: a function of (seed, step) alone, so nothing of it is saved."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def batch_order(
    step: int | tf.Tensor,
    *,
    sizes: Sequence[int],
    slots: Sequence[int] = (1,),
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which examples make up a process's share of the global batch of a step.

    Position k = step * batch_size + j of the endless sequence lies in cycle k // sum(slots). In
    every cycle each source gets as many positions as it has slots, in a random order. Counted slot
    by slot, its position number n lies in its epoch n // size, and every epoch is a pseudo-random
    permutation of all of its examples. What is returned are indices of the examples, counted
    through all sources, and positions k, both int64 [batch_size / process_count].
    """
    share = batch_size // process_count
    first = tf.cast(step, tf.int64) * batch_size + process_index * share
    positions = first + tf.range(share, dtype=tf.int64)
    cycles, slot = positions // sum(slots), positions % sum(slots)
    if len(sizes) > 1:
        slot = _shuffled(slot, tf.fill([share], np.int64(sum(slots))), len(sizes), seed, cycles)
    begins = np.cumsum([0, *slots])
    which = tf.searchsorted(begins[1:], slot, side="right", out_type=tf.int64)
    counts = cycles * tf.gather(np.array(slots, np.int64), which) + slot - tf.gather(begins, which)
    size = tf.gather(np.array(sizes, np.int64), which)
    within = _shuffled(counts % size, size, which, seed, counts // size)
    return tf.gather(np.cumsum([0, *sizes]), which) + within, positions


def _shuffled(
    index: tf.Tensor, size: tf.Tensor, stream: int | tf.Tensor, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Where each index of [0, size) goes in the permutation of its stream and epoch."""
    # The raw operation, since tf.random.experimental.index_shuffle of TensorFlow 2.21 pads a batch
    # of seeds along the wrong axis, and its 4 rounds leave up to half of 64 examples in place when
    # the words of the seed are small (measured; 16 rounds are as good as a uniform permutation).
    words = [tf.zeros_like(epoch) + stream, tf.zeros_like(epoch) + seed, epoch]
    return tf.raw_ops.RandomIndexShuffle(
        index=index, seed=tf.stack(words, axis=1), max_index=size - 1, rounds=16
    )

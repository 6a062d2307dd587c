"""The training objective, and the random corruptions of its conditions."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from lumiere_jax.diffusion import parameterisation
from lumiere_jax.diffusion.parameterisation import Kind, add_noise, expand_to
from lumiere_jax.diffusion.schedule import Schedule
from lumiere_jax.errors import UserError

Weighting = Literal["plain", "sigmoid"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
SIGMOID_BIAS = 2.0


def stratified_times(key: jax.Array, batch: int) -> jax.Array:
    """Times in [0, 1), each uniform, spread evenly over the batch.

    One random offset is shared by a regular grid, `(u + i / batch) mod 1`: the low-discrepancy
    sampler of variational diffusion models (arXiv 2107.00630, appendix I.1), which lowers the
    variance of the loss.

    Args:
        key: PRNG key.
        batch: number of times.

    Returns:
        [batch].
    """
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1.0


def diffusion_loss(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    key: jax.Array,
    *,
    schedule: Schedule,
    kind: Kind,
    weighting: Weighting = "plain",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Draws a noise level and noise for every sample and scores the network's prediction.

    Args:
        predict: `predict(z, log_snr)`, with z [batch, ...] and log_snr [batch], gives the raw
            prediction, the shape of z.
        x0: clean data, [batch, ...].
        key: PRNG key for times and noise.
        schedule: from times to log-SNRs.
        kind: what `predict` predicts: "v", "epsilon" or "x0".
        weighting: "plain" is the mean squared error of the predicted kind; "sigmoid" see
            `sigmoid_weight`.

    Returns:
        The loss [batch], and a dict of [batch] arrays: "time", "log_snr" and "squared_error"
        (the unweighted mean squared error of the predicted kind).

    Raises:
        UserError: if `kind` or `weighting` is unknown.
    """
    if weighting not in WEIGHTINGS:
        raise UserError(f"unknown loss weighting {weighting!r}: use one of {', '.join(WEIGHTINGS)}")
    time_key, noise_key = jax.random.split(key)
    time = stratified_times(time_key, x0.shape[0])
    log_snr = schedule.log_snr(time)
    noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
    goal = parameterisation.target(kind, x0, noise, log_snr)
    # Times follow the default precision; the network's input follows the data.
    prediction = predict(add_noise(x0, noise, log_snr).astype(x0.dtype), log_snr)
    error = jnp.square(prediction.astype(goal.dtype) - goal)
    squared_error = jnp.mean(error, axis=tuple(range(1, error.ndim)))
    weight = sigmoid_weight(time, schedule, kind) if weighting == "sigmoid" else 1.0
    aux = {"time": time, "log_snr": log_snr, "squared_error": squared_error}
    return weight * squared_error, aux


def sigmoid_weight(
    time: jax.Array, schedule: Schedule, kind: Kind, bias: float = SIGMOID_BIAS
) -> jax.Array:
    """Weight of the squared error of `kind` under sigmoid weighting.

    The noise error gets the weight `sigmoid(bias - log_snr) * -d log_snr / d time` (Kingma & Gao,
    arXiv 2303.00848, with their bias of 2): very fine details count less, and because of the
    derivative the expected loss does not depend on the schedule but for its ends. Errors of v and
    x0 are worth alpha^2 and exp(log_snr) of a noise error.

    Args:
        time: [batch].
        schedule: from times to log-SNRs.
        kind: "v", "epsilon" or "x0".
        bias: log-SNR around which the weight falls off.

    Returns:
        [batch].

    Raises:
        UserError: if `kind` is unknown.
    """
    parameterisation.check_kind(kind)
    log_snr, slope = jax.jvp(schedule.log_snr, (time,), (jnp.ones_like(time),))
    noise_error = {
        "epsilon": jnp.ones_like(log_snr),
        "v": jax.nn.sigmoid(log_snr),
        "x0": jnp.exp(log_snr),
    }[kind]
    return jax.nn.sigmoid(bias - log_snr) * -slope * noise_error


def drop_text(
    text: jax.Array,
    text_mask: jax.Array,
    null_text: jax.Array,
    null_mask: jax.Array,
    key: jax.Array,
    rate: float,
) -> tuple[jax.Array, jax.Array]:
    """Replaces the text of random samples by the null text.

    This teaches the network the unconditional prediction that classifier-free guidance needs
    (Ho & Salimans, arXiv 2207.12598, algorithm 1).

    Args:
        text: [batch, length, dim].
        text_mask: bool [batch, length].
        null_text: [length, dim], or with a leading axis of 1.
        null_mask: bool [length], or with a leading axis of 1.
        key: PRNG key.
        rate: probability that a sample loses its text.

    Returns:
        `(text, text_mask)`, shapes as given.
    """
    drop = jax.random.bernoulli(key, rate, (text.shape[0],))
    text = jnp.where(expand_to(drop, text), null_text, text)
    return text, jnp.where(expand_to(drop, text_mask), null_mask, text_mask)


def augment_low_resolution(
    low_resolution: jax.Array, level: jax.Array, noise: jax.Array
) -> jax.Array:
    """Noise-conditioning augmentation of a super-resolution network's input.

    A variance-preserving blend with noise, `cos(pi level / 2) x + sin(pi level / 2) noise`: the
    noise of cosine time `level`, without the cut-off of a schedule, so level 0 changes nothing.
    The technique is of cascaded diffusion (arXiv 2106.15282); level ~ U[0, 1] in training is
    Imagen's (arXiv 2205.11487, section 2.4).

    Args:
        low_resolution: [batch, time, height, width, channels].
        level: [batch], in [0, 1].
        noise: standard normal, the shape of `low_resolution`.

    Returns:
        The augmented input, same shape.
    """
    angle = expand_to(level, low_resolution) * (0.5 * math.pi)
    return jnp.cos(angle) * low_resolution + jnp.sin(angle) * noise

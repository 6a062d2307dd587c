"""The loss of a prediction and its weights, and what is drawn for a training clip."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from lumiere_jax.diffusion import discrete, parameterization
from lumiere_jax.diffusion.parameterization import Kind, expand_to
from lumiere_jax.diffusion.schedule import Schedule
from lumiere_jax.runtime.errors import UserError

Weighting = Literal["plain", "sigmoid", "balanced"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
SIGMOID_BIAS = 2.0


def stratified_times(key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
    """Times in [0, 1), each uniform, spread evenly over the batch.

    One random offset is shared by a regular grid, `(u + i / batch) mod 1`: the low-discrepancy
    sampler of variational diffusion models (arXiv 2107.00630, appendix I.1), which lowers the
    variance of the loss.
    """
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1.0


def diffusion_loss(
    prediction: Float[Array, "batch *axes channels"],
    x0: Float[Array, "batch *axes colours"],
    noise: Float[Array, "batch *axes colours"],
    time: Float[Array, " batch"],
    *,
    schedule: Schedule,
    kind: Kind,
    weighting: Weighting = "plain",
    learned_variance: bool = False,
) -> Float[Array, " batch"]:
    """Scores the network's prediction for `add_noise(x0, noise, schedule.log_snr(time))`.

    Args:
      prediction: of what `kind` says; as many channels as `x0`, or twice as many.
      x0: clean data.
      noise: what was added.
      time: see `stratified_times`.
      schedule: from times to log-SNRs.
      kind: what was predicted.
      weighting: "plain" is the mean squared error of the predicted kind; "sigmoid" and "balanced"
        see `sigmoid_weight` and `balanced_weight`.
      learned_variance: the prediction has twice the channels, and the loss is L_hybrid of arXiv
        2102.09672 (equation 16): the squared error, and 0.001 times the variational bound, which
        teaches the variance alone. Needs a `DiscreteSchedule` and "epsilon".

    An unknown kind or weighting is a `UserError`.
    """
    if weighting not in WEIGHTINGS:
        raise UserError(f"unknown loss weighting {weighting!r}: use one of {', '.join(WEIGHTINGS)}")
    log_snr = schedule.log_snr(time)
    goal = parameterization.target(kind, x0, noise, log_snr)
    bound: ArrayLike = 0.0
    if learned_variance:
        assert isinstance(schedule, discrete.DiscreteSchedule)
        prediction, fraction = discrete.split_variance(prediction)
        frozen = jax.lax.stop_gradient(prediction)  # the bound is too noisy to learn the mean from
        previous = schedule.previous_log_snr(log_snr)
        bound = discrete.variational_bound(x0, noise, frozen, fraction, log_snr, previous)
    error = jnp.square(prediction.astype(goal.dtype) - goal)
    squared_error = jnp.mean(error, axis=tuple(range(1, error.ndim)))
    weight: ArrayLike = 1.0
    if weighting == "sigmoid":
        weight = sigmoid_weight(time, schedule, kind)
    elif weighting == "balanced":
        weight = balanced_weight(log_snr, kind)
    steps = discrete.NUM_TIMESTEPS  # the whole bound is a sum over them
    return jnp.asarray(weight * squared_error + discrete.VARIATIONAL_WEIGHT * steps * bound)


def sigmoid_weight(
    time: Float[Array, " batch"], schedule: Schedule, kind: Kind, bias: float = SIGMOID_BIAS
) -> Float[Array, " batch"]:
    """Weight of the squared error of `kind` under sigmoid weighting.

    The noise error gets the weight `sigmoid(bias - log_snr) * -d log_snr / d time` (Kingma & Gao,
    arXiv 2303.00848, with their bias of 2): very fine details count less, and because of the
    derivative the expected loss does not depend on the schedule but for its ends. Errors of v and
    x0 are worth alpha^2 and exp(log_snr) of a noise error.
    """
    log_snr, slope = jax.jvp(schedule.log_snr, (time,), (jnp.ones_like(time),))
    noise_error = {
        "epsilon": jnp.ones_like(log_snr),
        "v": jax.nn.sigmoid(log_snr),
        "x0": jnp.exp(log_snr),
    }[kind]
    return jax.nn.sigmoid(bias - log_snr) * -slope * noise_error


def balanced_weight(log_snr: Float[Array, " batch"], kind: Kind) -> Float[Array, " batch"]:
    """Weight of the squared error of `kind` that lets no range of noise levels drown the others.

    An error of x0 gets the weight `min(1, exp(log_snr / 2))`. What cannot be known at much noise,
    such as where an object is, makes most of the plain error of x0, and most of its gradient's
    noise; what is decided later, such as the object's shape, is a small part of it. This weight
    falls about as fast as that error rises (a choice of this project).
    """
    weight = jnp.minimum(1.0, jnp.exp(0.5 * log_snr))
    # Errors of v and noise are those of x0 over sigma^2, and times the signal-to-noise ratio.
    x0_error = {
        "x0": jnp.ones_like(log_snr),
        "v": jax.nn.sigmoid(-log_snr),
        "epsilon": jnp.exp(-log_snr),
    }[kind]
    return weight * x0_error


def drop_text(
    text: Float[Array, "batch length dim"],
    text_mask: Bool[Array, "batch length"],
    null_text: Float[ArrayLike, "*one length dim"],
    null_mask: Bool[ArrayLike, "*one length"],
    key: PRNGKeyArray,
    rate: float,
) -> tuple[Float[Array, "batch length dim"], Bool[Array, "batch length"]]:
    """Replaces the text of random samples, with the probability `rate`, by the null text.

    This teaches the network the unconditional prediction that classifier-free guidance needs
    (Ho & Salimans, arXiv 2207.12598, algorithm 1). The null text is of the empty prompt.
    """
    drop = jax.random.bernoulli(key, rate, (text.shape[0],))
    text = jnp.where(expand_to(drop, text), null_text, text)
    return text, jnp.where(expand_to(drop, text_mask), null_mask, text_mask)

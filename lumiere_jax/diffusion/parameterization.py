"""What a network predicts (v, noise or clean data) and exact conversions between them."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from lumiere_jax.diffusion.schedule import alpha_sigma
from lumiere_jax.runtime.errors import UserError

Kind = Literal["v", "epsilon", "x0"]
KINDS: tuple[str, ...] = get_args(Kind)


def expand_to(values: jax.Array, like: jax.Array) -> jax.Array:
    """Appends axes of length 1 to `values` [batch] (or a scalar) up to the rank of `like`."""
    values = jnp.asarray(values)
    return (
        values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values
    )


def add_noise(x0: jax.Array, noise: jax.Array, log_snr: jax.Array) -> jax.Array:
    """The noisy sample `z = alpha x0 + sigma noise`.

    Args:
      x0: clean data, [batch, ...].
      noise: standard normal, the shape of `x0`.
      log_snr: [batch] or a scalar.

    Returns:
      `z`, the shape of `x0`.
    """
    alpha, sigma = alpha_sigma(expand_to(log_snr, x0))
    return alpha * x0 + sigma * noise


def target(kind: Kind, x0: jax.Array, noise: jax.Array, log_snr: jax.Array) -> jax.Array:
    """What a network of this kind should output.

    `v = alpha noise - sigma x0` is of Salimans & Ho, arXiv 2202.00512, section 4.

    Args:
      kind: "v", "epsilon" or "x0".
      x0: clean data, [batch, ...].
      noise: the noise that was added, the shape of `x0`.
      log_snr: [batch] or a scalar.

    Returns:
      The target, the shape of `x0`.

    Raises:
      UserError: if `kind` is unknown.
    """
    check_kind(kind)
    if kind == "x0":
        return x0
    if kind == "epsilon":
        return noise
    alpha, sigma = alpha_sigma(expand_to(log_snr, x0))
    return alpha * noise - sigma * x0


def to_x0(kind: Kind, prediction: jax.Array, z: jax.Array, log_snr: jax.Array) -> jax.Array:
    """Clean data as implied by a prediction of this kind at `z`; see `convert`."""
    return convert(prediction, z, log_snr, kind, "x0")


def to_epsilon(kind: Kind, prediction: jax.Array, z: jax.Array, log_snr: jax.Array) -> jax.Array:
    """Noise as implied by a prediction of this kind at `z`; see `convert`."""
    return convert(prediction, z, log_snr, kind, "epsilon")


def convert(
    prediction: jax.Array, z: jax.Array, log_snr: jax.Array, source: Kind, target: Kind
) -> jax.Array:
    """Restates a prediction of one kind as another, exactly.

    Every conversion is affine in the prediction with weights that depend on the noise level
    alone, hence averages over windows and guidance commute with it. Dividing by a vanishing
    alpha (from "epsilon" near pure noise) or sigma (from "x0" near clean data) loses precision.

    Args:
      prediction: [batch, ...].
      z: the noisy sample that it was made for, same shape.
      log_snr: [batch] or a scalar.
      source: kind of `prediction`.
      target: kind wanted.

    Returns:
      The prediction as `target`, same shape.

    Raises:
      UserError: if a kind is unknown.
    """
    check_kind(source)
    check_kind(target)
    if source == target:
        return prediction
    alpha, sigma = alpha_sigma(expand_to(log_snr, z))
    match source, target:
        case "v", "x0":
            return alpha * z - sigma * prediction
        case "v", "epsilon":
            return sigma * z + alpha * prediction
        case "epsilon", "x0":
            return (z - sigma * prediction) / alpha
        case "x0", "epsilon":
            return (z - alpha * prediction) / sigma
        case "epsilon", _:
            return (prediction - sigma * z) / alpha
        case _:
            return (alpha * z - prediction) / sigma


def check_kind(kind: str) -> None:
    """Raises a `UserError` that names the known kinds if `kind` is none of them."""
    if kind not in KINDS:
        raise UserError(f"unknown parameterization {kind!r}: use one of {', '.join(KINDS)}")

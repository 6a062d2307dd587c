"""What a network predicts (v, noise or clean data) and exact conversions between them."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from lumiere_jax.diffusion.schedule import alpha_sigma
from lumiere_jax.runtime.arrays import Array
from lumiere_jax.runtime.errors import UserError

Kind = Literal["v", "epsilon", "x0"]
KINDS: tuple[str, ...] = get_args(Kind)
Clip = Float[Array, "*clip"]  # [batch, ...]
LogSnr = Float[ArrayLike, "*batch"]  # [batch], or a scalar for all


def expand_to(values: ArrayLike, like: Array) -> Array:
    """Appends axes of length 1 to `values` [batch] (or a scalar) up to the rank of `like`."""
    values = jnp.asarray(values)
    ones = (1,) * (like.ndim - values.ndim)
    return values.reshape(*values.shape, *ones) if values.ndim else values


def add_noise(x0: Clip, noise: Clip, log_snr: LogSnr) -> Clip:
    """The noisy sample `z = alpha x0 + sigma noise` of clean data."""
    alpha, sigma = alpha_sigma(expand_to(log_snr, x0))
    return alpha * x0 + sigma * noise


def target(kind: Kind, x0: Clip, noise: Clip, log_snr: LogSnr) -> Clip:
    """What a network of this kind should output for clean data and the noise that was added.

    `v = alpha noise - sigma x0` is of Salimans & Ho, arXiv 2202.00512, section 4.
    An unknown kind is a `UserError`.
    """
    _check_kind(kind)
    if kind == "x0":
        return x0
    if kind == "epsilon":
        return noise
    alpha, sigma = alpha_sigma(expand_to(log_snr, x0))
    return alpha * noise - sigma * x0


def to_x0(kind: Kind, prediction: Clip, z: Clip, log_snr: LogSnr) -> Clip:
    """Clean data as implied by a prediction of this kind at `z`; see `convert`."""
    return convert(prediction, z, log_snr, kind, "x0")


def convert(prediction: Clip, z: Clip, log_snr: LogSnr, source: Kind, target: Kind) -> Clip:
    """Restates a prediction of one kind as another, exactly.

    Every conversion is affine in the prediction with weights that depend on the noise level
    alone, hence averages over windows and guidance commute with it. Dividing by a vanishing
    alpha (from "epsilon" near pure noise) or sigma (from "x0" near clean data) loses precision.
    An unknown kind is a `UserError`.
    """
    _check_kind(source)
    _check_kind(target)
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


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"unknown parameterization {kind!r}: use one of {', '.join(KINDS)}")

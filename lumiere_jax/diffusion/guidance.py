"""Classifier-free guidance, and autoguidance, which is the same with a weaker network's prediction.

The other methods, `projected_guidance` and `zero_guidance`, combine estimates of clean data.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from lumiere_jax.diffusion.discrete import split_variance


def pair(conditional: PyTree[Array], null: PyTree[Array]) -> PyTree[Array]:
    """Both branches of guidance as one batch: `[batch, ...]` twice to `[2 batch, ...]`.

    The two of each sample are side by side, so that a batch that is split over devices stays where
    it is, which concatenation would not allow.
    """
    return jax.tree.map(
        lambda first, second: jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:]),
        conditional,
        null,
    )


def unpaired(
    prediction: Float[Array, " pairs *shape"],
) -> tuple[Float[Array, " batch *shape"], Float[Array, " batch *shape"]]:
    """The two branches of a batch that `pair` made."""
    both = prediction.reshape(-1, 2, *prediction.shape[1:])
    return both[:, 0], both[:, 1]


def guide(
    prediction: Float[Array, " pairs *shape"],
    scale: jax.typing.ArrayLike,
    learned_variance: bool = False,
) -> Float[Array, " batch *shape"]:
    """Classifier-free guidance: `null + scale (conditional - null)`.

    Ho & Salimans, arXiv 2207.12598, in the convention of Imagen, arXiv 2205.11487, equation 2:
    scale 1 is the conditional model. As the weights sum to one, it means the same for predictions
    of v, noise or x0. In autoguidance (Karras et al., arXiv 2406.02507) the null
    branch is a weaker network's prediction for the same text.

    The prediction is of a batch that `pair` made; `scale`, a scalar or `[batch]`, may be traced. A
    learned variance, the second half of the last axis, is the conditional branch's, as in DeepFloyd
    IF.
    """
    conditional, null = unpaired(prediction)
    weight = jnp.asarray(scale, prediction.dtype)
    weight = weight.reshape(weight.shape + (1,) * (null.ndim - 1)) if weight.ndim else weight
    if not learned_variance:
        return null + weight * (conditional - null)
    null, _ = split_variance(null)
    conditional, variance = split_variance(conditional)
    return jnp.concatenate([null + weight * (conditional - null), variance], axis=-1)

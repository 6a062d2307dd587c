"""Low-rank changes of a network's matrices (LoRA, arXiv 2106.09685)."""

import math

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PRNGKeyArray

from lumiere_jax.models.parameters import Params

LORA = "lora"  # where the factors are among the parameters


def fresh_lora(params: Params, rank: int, key: PRNGKeyArray) -> Params:
    """Factors of changes of a network's kernels that are zero at first, by path with slashes.

    They are "down" `[rows, rank]` and "up" `[rank, columns]`; the columns are the kernel's output
    channels, and all of its other axes are rows.
    """
    factors = {}
    for number, (path, leaf) in enumerate(sorted(flatten_dict(params).items())):
        columns, rows = leaf.shape[-1], math.prod(leaf.shape[:-1])
        if path[-1] == "kernel" and rank < min(rows, columns):
            noise = jax.random.normal(jax.random.fold_in(key, number), (rows, rank))
            up = jnp.zeros((rank, columns))
            factors["/".join(path)] = {"down": noise * rows**-0.5, "up": up}
    return factors


def merge_lora(params: Params) -> Params:
    """The network's own parameters, with low-rank changes added where there are any."""
    if LORA not in params:
        return params
    flat = flatten_dict({name: value for name, value in params.items() if name != LORA})
    for name, factors in params[LORA].items():
        path = tuple(name.split("/"))
        change = (factors["down"] @ factors["up"]).reshape(flat[path].shape)
        flat[path] = (flat[path] + change).astype(flat[path].dtype)
    return unflatten_dict(flat)

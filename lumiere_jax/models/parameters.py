"""Trees of parameters: nested dictionaries of arrays, by the names of modules."""

from collections.abc import Callable
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict[str, Any]


def partition(
    params: Params, is_trainable: Callable[[tuple[str, ...]], bool]
) -> tuple[Params, Params]:
    """Splits a tree of parameters by a rule over paths into (trainable, frozen)."""
    flat = flatten_dict(params)
    trainable = {path: leaf for path, leaf in flat.items() if is_trainable(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trainable}
    return unflatten_dict(trainable), unflatten_dict(frozen)


def merge(trainable: Params, frozen: Params) -> Params:
    """Puts together what `partition` took apart."""
    return unflatten_dict({**flatten_dict(frozen), **flatten_dict(trainable)})


def count(params: Params) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def leaf_name(tree: Any, index: int) -> str:
    """Path of a leaf by its index in `jax.tree.leaves` order, such as "conv_in/kernel"."""
    path, _ = jax.tree_util.tree_leaves_with_path(tree)[index]
    return jax.tree_util.keystr(path, simple=True, separator="/")

"""The text encoder of the full configs, made ready for the compiler by shapes alone."""

import jax
import jax.numpy as jnp

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.planning import flops
from lumiere_jax.planning.compile import Step, bytes_a_device
from lumiere_jax.planning.topology import Target
from lumiere_jax.runtime.sharding import create_mesh, state_shardings, with_shardings
from lumiere_jax.text import t5, t5_weights
from lumiere_jax.text.t5_network import T5_V1_1_XXL, T5Encoder

LENGTH = 128  # tokens of a prompt in the full configs


def embedding_step(prompts_a_device: int, target: Target) -> Step:
    """T5 XXL for a batch of prompts in bfloat16, its parameters split over all devices.

    Args:
      prompts_a_device: how many of the batch each device has.
      target: the devices.
    """
    mesh = create_mesh(ConfigDict({"data": 1, "fsdp": -1, "space": 1}), target.devices)
    batch, dtype = prompts_a_device * mesh.size, jnp.bfloat16
    shapes = t5_weights.parameter_shapes(T5_V1_1_XXL, dtype)
    tokens = jax.ShapeDtypeStruct((batch, LENGTH), jnp.int32)
    mask = jax.ShapeDtypeStruct((batch, LENGTH), bool)

    def apply(params: dict, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return T5Encoder(T5_V1_1_XXL, dtype).apply({"params": params}, tokens, mask)

    return Step(
        compile=lambda: t5.compile_encoder(T5_V1_1_XXL, dtype, mesh, batch, LENGTH),
        mesh=mesh,
        batch=batch,
        repeats=1,
        trainable=0,
        frozen=t5_weights.count(T5_V1_1_XXL),
        held=bytes_a_device(with_shardings(shapes, state_shardings(shapes, mesh))),
        model_flops=flops.count(apply, shapes, tokens, mask).total,
    )

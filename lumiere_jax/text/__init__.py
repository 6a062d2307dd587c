"""From prompts to embeddings."""

from lumiere_jax.text.creation import (
    TextConfig,
    create,
    device_part,
    host_part,
    move_folder,
    pin_weights,
)
from lumiere_jax.text.encoder import EmptyPrompt, ShapesOnly, TextEncoder
from lumiere_jax.text.hashed import HashedTextEncoder
from lumiere_jax.text.t5 import T5TextEncoder

__all__ = [
    "EmptyPrompt",
    "HashedTextEncoder",
    "ShapesOnly",
    "T5TextEncoder",
    "TextConfig",
    "TextEncoder",
    "create",
    "device_part",
    "host_part",
    "move_folder",
    "pin_weights",
]

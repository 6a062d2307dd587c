"""From prompts to embeddings."""

from lumiere_jax.text.encoder import TextEncoder, create
from lumiere_jax.text.hashed import HashedTextEncoder

__all__ = ["HashedTextEncoder", "TextEncoder", "create"]

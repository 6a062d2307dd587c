"""Lumiere in JAX: text-to-video diffusion with a Space-Time U-Net.

The package follows "Lumiere: A Space-Time Diffusion Model for Video Generation"
(Bar-Tal et al., arXiv 2401.12945). Importing it is cheap: JAX and TensorFlow are
imported by the modules that need them.
"""

import os

# Before TensorFlow is loaded, by whichever module: it does no mathematics here, and has nothing
# to tell.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name == "LumierePipeline":
        from lumiere_jax.inference.pipeline import LumierePipeline

        return LumierePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

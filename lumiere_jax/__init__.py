"""Lumiere in JAX: text-to-video diffusion with a Space-Time U-Net.

The package follows "Lumiere: A Space-Time Diffusion Model for Video Generation"
(Bar-Tal et al., arXiv 2401.12945). Importing it is cheap: JAX and TensorFlow are
imported by the modules that need them.
"""

__version__ = "0.1.0"

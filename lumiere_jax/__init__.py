"""Lumiere in JAX: text-to-video diffusion with a Space-Time U-Net.

The package follows "Lumiere: A Space-Time Diffusion Model for Video Generation"
(Bar-Tal et al., arXiv 2401.12945). Importing it is cheap: JAX and TensorFlow are
imported by the modules that need them.
"""

import importlib
import os
import sys
import types
import warnings

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


class _Moved(types.ModuleType):
    """Stands where a module was in version 0.1, for config files and scripts of users."""

    def __init__(self, name: str, place: str):
        super().__init__(f"{__name__}.{name}")
        self._place = f"{__name__}.{place}"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what importing itself looks for
            raise AttributeError(name)
        warnings.warn(f"{self.__name__} is now {self._place}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(self._place), name)


for _name, _place in (
    ("config", "cascade.config"),
    ("errors", "runtime.errors"),
    ("inherited", "checkpoints.inheritance"),
    ("pipeline", "inference.pipeline"),
):
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = _Moved(_name, _place)

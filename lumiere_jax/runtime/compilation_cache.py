"""Compiled programs that outlive the process."""

from pathlib import Path

import jax

DEFAULT_FOLDER = Path("~/.cache/lumiere_jax/compiled")


def use() -> str | None:
    """Keeps compiled programs on disk, so that a job that starts again does not compile again.

    JAX_COMPILATION_CACHE_DIR names the folder, local or in a bucket; where it is not set, the
    default is `DEFAULT_FOLDER` on accelerators and none on the CPU, whose programs belong to one
    type of processor.

    Returns:
      The folder, or None.
    """
    if not jax.config.jax_compilation_cache_dir and jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_dir", str(DEFAULT_FOLDER.expanduser()))
    return jax.config.jax_compilation_cache_dir

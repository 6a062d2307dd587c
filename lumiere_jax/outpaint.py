"""Extends a video beyond its edges: `python -m lumiere_jax.outpaint --video=x.mp4 …`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("outpaint")

if __name__ == "__main__":
    errors.run(main)

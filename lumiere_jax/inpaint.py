"""Inpainting and local editing: `python -m lumiere_jax.inpaint --video=x.mp4 --mask=x.png …`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("inpaint")

if __name__ == "__main__":
    errors.run(main)

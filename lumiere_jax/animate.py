"""Image-to-video: `python -m lumiere_jax.animate --base=DIR --image=x.png --prompt=TEXT …`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("animate")

if __name__ == "__main__":
    errors.run(main)

"""Sets one region of a picture in motion: `python -m lumiere_jax.cinemagraph --mask=m.png …`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("cinemagraph")

if __name__ == "__main__":
    errors.run(main)

"""Continues a video: `python -m lumiere_jax.extend --video=x.mp4 --num_frames=N …`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("extend")

if __name__ == "__main__":
    errors.run(main)

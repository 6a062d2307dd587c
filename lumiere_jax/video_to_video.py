"""Video-to-video by SDEdit: `python -m lumiere_jax.video_to_video --video=x.mp4 --prompt=TEXT`."""

from lumiere_jax.inference import command
from lumiere_jax.runtime import errors

main = command.of("video_to_video")

if __name__ == "__main__":
    errors.run(main)

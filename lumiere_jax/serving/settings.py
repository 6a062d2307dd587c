"""What a server and its workers are told once, at the start."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a request may ask for.

    Attributes:
      queue: jobs that wait, of all clients; more are refused.
      prompt: characters.
      frames: of a video that is made, or taken in.
      steps: of each stage.
      upload_bytes: of a whole request.
      pixels: of a picture, or of a frame of a video.
      seconds: of a video that is taken in.
      video_pixels: of all frames of a video that is taken in, at the model's frame rate.
      decoded_pixels: of all frames in the file, which are decoded on the way.
      streams: clients that follow progress at once.
    """

    queue: int = 100
    prompt: int = 1000
    frames: int = 160
    steps: int = 250
    upload_bytes: int = 32 * 2**20
    pixels: int = 2**24
    seconds: float = 60.0
    video_pixels: int = 2**26
    decoded_pixels: int = 2**31
    streams: int = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What workers are told.

    Attributes:
      bundle: folder of the weights.
      database: URL for SQLAlchemy.
      scratch: folder for temporary files.
      is_alone: whether no other server shares the database.
      distilled: whether stages of few steps are taken, where there are such.
      text_folder: of the text encoder's weights, None for where they were in training.
      max_batch: jobs made at once.
      batch_wait: seconds that a job waits for others like it.
      job_timeout: seconds that a job may take, compilation included.
      lease: seconds without a sign of life after which a worker has lost its jobs.
      keep: seconds that a job is kept after its end.
      limits: see there.
    """

    bundle: Path
    database: str
    scratch: Path
    is_alone: bool = False
    distilled: bool = False
    text_folder: str | None = None
    max_batch: int = 4
    batch_wait: float = 0.2
    job_timeout: float = 1800.0
    lease: float = 30.0
    keep: float = 24 * 3600.0
    limits: Limits = Limits()

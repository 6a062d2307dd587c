"""Settings of a server and its workers."""

import dataclasses
from pathlib import Path

from lumiere_jax.runtime.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a request may ask for. Fields with help are flags of the command."""

    queue: int = option(100, "Jobs that may wait.", name="max_queue", minimum=1)
    queue_per_client: int = option(
        50, "Jobs of one API key that may wait; without keys, of one address.",
        name="max_queue_per_client", minimum=1,
    )  # fmt: skip
    prompt: int = option(1000, "Characters of a prompt.", name="max_prompt", minimum=1)
    frames: int = option(160, "Frames of a video.", name="max_frames", minimum=1)
    steps: int = option(250, "Denoising steps of a stage.", name="max_steps", minimum=1)
    seconds: float = option(60.0, "Duration of an uploaded video.", name="max_seconds", minimum=0.1)
    upload_bytes: int = 32 * 2**20  # of a whole request
    pixels: int = 2**24  # of an uploaded picture, or of a frame of an uploaded video
    video_pixels: int = 2**26  # of all frames of an uploaded video, at the model's frame rate
    decoded_pixels: int = 2**31  # of all frames in its file, since all must be decoded
    streams: int = 200  # clients that follow progress at the same time

    @property
    def text(self) -> int:
        """Bytes of a field of a form: in one that is not multipart, a character takes up to 12."""
        return 4096 + 12 * self.prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of workers. Fields with help are flags of the command."""

    bundle: Path  # folder of the weights
    database: str  # URL for SQLAlchemy
    scratch: Path  # folder for temporary files
    model: str = "lumiere"  # what clients call the weights
    is_alone: bool = False  # whether no other server shares the database
    distilled: bool = option(False, "Use the bundle's distilled stages.")
    text_folder: str | None = option(None, "Folder of the T5 encoder, if it moved since training.")
    max_batch: int = option(4, "Jobs made together.", minimum=1, maximum=1024)
    batch_wait: float = option(
        0.2, "Seconds that a job waits for others like it.", minimum=0, maximum=5
    )
    job_timeout: float = option(
        1800.0, "Seconds that a job may take, including compilation.", minimum=1
    )
    lease: float = option(
        30.0, "Seconds without a sign of life after which a worker counts as lost.", minimum=6
    )
    framed_by: str = option(
        "",
        "Origins whose pages may show the playground in a frame, such as https://huggingface.co.",
    )
    keep: float = 24 * 3600.0  # seconds that a job is kept after it has ended
    limits: Limits = Limits()

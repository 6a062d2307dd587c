"""Whatever a damaged file makes a decoder do becomes one message."""

import contextlib
import os
from collections.abc import Iterator

from lumiere_jax.data.video_timing import VideoReadError
from lumiere_jax.runtime.errors import UserError


@contextlib.contextmanager
def told(path: str | os.PathLike) -> Iterator[None]:
    """Makes a `VideoReadError` of what goes wrong while a video is read, if it is none already."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # FFmpeg, PyAV and NumPy may raise anything for damaged bytes
        raise VideoReadError(path, f"{type(error).__name__}: {error}") from error

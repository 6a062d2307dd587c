"""Random access and reading through give FFmpeg's frames, in whatever way a file is stored.

`FUZZED_FILES=600 pytest tests/data/test_video_fuzz.py` tries that many files.
"""

import os

import av
import numpy as np
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from tests.data.numbered_videos import (
    ENCODERS,
    MATRICES,
    MPEG_RATES,
    RATES,
    REORDERING,
    Recipe,
    numbers,
    write,
)

FILES = int(os.environ.get("FUZZED_FILES", "25"))
UNTIMED = ("avi", "h264", "m4v", "wmv", "mpg")  # frames that were never recorded leave no gap


@st.composite
def recipes(draw) -> Recipe:
    suffix = draw(st.sampled_from(sorted(ENCODERS)))
    encoder = draw(st.sampled_from(ENCODERS[suffix]))
    rates = MPEG_RATES if encoder.startswith("mpeg") and encoder != "mpeg4" else RATES
    key_every = draw(st.sampled_from((1, 5, 12, 250)))
    num_frames = draw(st.integers(1, 70))
    is_cut = suffix in ("mp4", "mov", "mkv") and encoder in ("libx264", "mpeg4", "libx265")
    cut = draw(st.integers(0, max(num_frames - 8, 0))) if is_cut else 0
    has_gaps = (
        num_frames > 20
        and encoder in ("libx264", "libx265", "mjpeg")
        and suffix not in UNTIMED
        and not cut
    )
    return Recipe(
        suffix=suffix,
        encoder=encoder,
        rate=draw(st.sampled_from(rates)),
        num_frames=num_frames,
        b_frames=draw(st.integers(0, min(3, key_every - 1))) if encoder in REORDERING else 0,
        key_every=key_every,
        start=0.0 if suffix in UNTIMED or cut else draw(st.sampled_from((0.0, 0.0, 1.4, 3600.5))),
        cut=cut,
        dropped=tuple(draw(st.lists(st.integers(1, 68), max_size=3))) if has_gaps else (),
        matrix=draw(st.sampled_from(MATRICES)) if suffix in ("mp4", "mov") else MATRICES[0],
    )


def sequential(path) -> list[int]:
    """The numbers that FFmpeg's decoder shows, one after the other; none if it cannot open it."""
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.error.FFmpegError:
        return []
    return numbers(np.stack(frames)) if frames else []


@settings(max_examples=FILES, deadline=None)
@given(recipe=recipes(), data=st.data())
def test_parts_are_what_reading_through_gives(tmp_path_factory, recipe, data):
    note(repr(recipe))
    path = tmp_path_factory.mktemp("file") / f"a.{recipe.suffix}"
    try:
        write(path, recipe)
    except av.error.FFmpegError:  # a combination that the encoder does not know
        assume(False)
    shown = sequential(path)
    assume(shown)
    assert recipe.cut or shown == recipe.shown

    info = probe_video(path)
    if len(shown) > 7 and not recipe.dropped and recipe.suffix != "h264":  # which has no times
        milliseconds = 1e-3 * recipe.rate / len(shown)  # to which Matroska rounds, of the whole
        np.testing.assert_allclose(info.fps, recipe.rate, rtol=1e-3 + milliseconds)
    whole = upright(read_video(path, fps=info.fps, info=info), recipe)
    held = [max(k for k in shown if k <= n) for n in range(shown[0], shown[-1] + 1)]
    if recipe.suffix == "mpg":  # FFmpeg guesses most of its times
        assert list(dict.fromkeys(numbers(whole))) == shown
    else:
        assert numbers(whole)[: len(held)] == held
        assert set(numbers(whole)[len(held) :]) <= {held[-1]}  # a last frame that is held for long

    fps = data.draw(st.sampled_from((info.fps, 8.0, 16.0, 25.0)))
    through = read_video(path, fps=fps, info=info)
    start = data.draw(st.integers(0, len(through) - 1))
    count = data.draw(st.integers(1, min(len(through) - start, 16)))
    part = read_video(path, fps=fps, start=start, num_frames=count, info=info)
    np.testing.assert_array_equal(
        numbers(upright(part, recipe)), numbers(upright(through, recipe))[start : start + count]
    )
    path.unlink()


def upright(video: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Frames as they are stored, of a video that was turned by the matrix of a recipe."""
    a, b, c, d = recipe.matrix
    if b:  # rows are columns
        video = video.swapaxes(1, 2)
    horizontal, vertical = (c, b) if b else (a, d)
    # What is first turned over along x in the picture was, before the axes changed, along y.
    flips = {1: vertical if not b else horizontal, 2: horizontal if not b else vertical}
    for axis, sign in flips.items():
        if sign < 0:
            video = np.flip(video, axis)
    return video

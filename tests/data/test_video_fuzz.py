"""Random access and reading through give the same frames, in whatever way a file is stored.

`FUZZED_FILES=600 pytest tests/data/test_video_fuzz.py` tries that many files.
"""

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import probe_video
from tests.data.numbered_videos import (
    ENCODERS,
    MPEG_RATES,
    RATES,
    REORDERING,
    Recipe,
    numbers,
    write,
)

FILES = int(os.environ.get("FUZZED_FILES", "40"))


@st.composite
def recipes(draw) -> Recipe:
    suffix = draw(st.sampled_from(sorted(ENCODERS)))
    encoder = draw(st.sampled_from(ENCODERS[suffix]))
    is_mpeg = encoder in ("mpeg1video", "mpeg2video")
    has_times = suffix not in ("avi", "h264", "m4v", "wmv", "mpg")
    can_start = suffix not in ("h264", "m4v", "avi")
    return Recipe(
        suffix=suffix,
        encoder=encoder,
        rate=draw(st.sampled_from(MPEG_RATES if is_mpeg else RATES)),
        num_frames=draw(st.integers(1, 70)),
        b_frames=draw(st.integers(0, 3)) if encoder in REORDERING else 0,
        key_every=draw(st.sampled_from((1, 5, 12, 250))),
        start=draw(st.sampled_from((0.0, 0.0, 1.4, 3600.5))) if can_start else 0.0,
        dropped=tuple(draw(st.lists(st.integers(1, 68), max_size=3)))
        if has_times and encoder in ("libx264", "libx265", "mjpeg", "ffv1")
        else (),
    )


@settings(max_examples=FILES, deadline=None)
@given(recipe=recipes(), data=st.data())
def test_parts_are_what_reading_through_gives(tmp_path_factory, recipe, data):
    path = write(tmp_path_factory.mktemp("file") / f"a.{recipe.suffix}", recipe)
    info = probe_video(path)
    whole = read_video(path, fps=info.fps, info=info)
    rate = info.fps if len(recipe.shown) > 1 else recipe.rate
    assert abs(rate / recipe.rate - 1) < 2e-3 or recipe.dropped
    held = [max(k for k in recipe.shown if k <= n) for n in range(recipe.shown[-1] + 1)]
    assert numbers(whole)[: len(held)] == held
    fps = data.draw(st.sampled_from((info.fps, 8.0, 16.0, 25.0)))
    through = read_video(path, fps=fps, info=info)
    start = data.draw(st.integers(0, len(through) - 1))
    count = data.draw(st.integers(1, min(len(through) - start, 16)))
    part = read_video(path, fps=fps, start=start, num_frames=count, info=info)
    np.testing.assert_array_equal(numbers(part), numbers(through)[start : start + count])

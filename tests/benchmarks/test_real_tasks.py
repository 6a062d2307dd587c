"""What `benchmarks/ucf101_tasks.py` gives to a model, and measures, on made-up clips."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from real_clips import Prepared  # noqa: E402
from real_tasks import TASKS, cases, given_to  # noqa: E402


@pytest.fixture(name="some")
def fixture_some():
    """Four clips of noise of two classes, in which a quarter of the frame moves."""
    rng = np.random.default_rng(0)
    clips = np.repeat(rng.integers(60, 190, (4, 1, 8, 8, 3)), 5, axis=1)
    clips[:, 1::2, 2:6, 3:7] += 20
    classes = np.array(["A", "A", "B", "B"])
    return cases(Prepared(clips.astype(np.uint8), classes, list("abcd")))


def test_cases_and_whose_condition_they_are_given(some):
    assert all(case.other_name != case.name for case in some)
    assert {case.other_caption for case in some[:2]} <= {"c", "d"}
    expected = np.zeros((8, 8), bool)
    expected[2:6, 3:7] = True
    assert all(np.array_equal(case.region, expected) for case in some)
    assert given_to(some, 1, own=True) is some[1]
    assert [given_to(some, n, own=False).caption for n in range(4)] == ["c", "c", "a", "a"]


def test_figures_of_the_true_clip_and_of_a_still_one(some):
    case = some[0]
    true = {name: task.measure(case.video, case) for name, task in TASKS.items()}
    still = np.repeat(case.video[:1], 5, axis=0)
    frozen = {name: task.measure(still, case) for name, task in TASKS.items()}
    assert true["image-to-video"]["change a frame"] == pytest.approx(20 / 4, rel=1e-4)
    assert true["inpainting"]["inside, change a frame"] == pytest.approx(20, rel=1e-4)
    assert true["cinemagraph"]["outside, change a frame"] == 0
    assert true["inpainting"]["inside, PSNR"] == pytest.approx(100 + 10 * np.log10(4), abs=0.01)
    # Two of five frames are off by 20 levels in the box.
    expected = 10 * np.log10(4 / (2 / 5 * (20 / 127.5) ** 2))
    assert frozen["inpainting"]["inside, PSNR"] == pytest.approx(expected, rel=1e-4)
    assert frozen["inpainting"]["outside, PSNR"] == true["inpainting"]["outside, PSNR"]
    assert frozen["image-to-video"]["change a frame"] == 0
    assert frozen["image-to-video"]["first frame, PSNR"] > 100


def test_what_a_model_is_asked(some):
    asked = {}

    class Model:
        """Returns what it is given."""

        def __getattr__(self, name):
            def call(shown, *others, **options):
                asked[name] = others
                video = np.repeat(shown[None], 5, axis=0) if shown.ndim == 3 else shown
                return video[None]

            return call

    made = {name: task.make(Model(), some[0], seeds=[0]) for name, task in TASKS.items()}
    assert all(clip.shape == some[0].video.shape for clip in made.values())
    assert asked["video_to_video"] == ([some[0].other_caption],)
    assert asked["animate"] == (["a"],)
    assert np.array_equal(asked["inpaint"][0], some[0].region[None])
    assert np.array_equal(asked["cinemagraph"][0], some[0].region)
    assert [TASKS[name].asked(some[0]) for name in ("inpainting", "video-to-video")] == ["A", "B"]

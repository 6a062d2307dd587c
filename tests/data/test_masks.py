import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumiere_jax.data import masks
from lumiere_jax.runtime.errors import UserError

SHAPES = st.tuples(st.integers(1, 9), st.integers(4, 40), st.integers(4, 40))


def draw(name, shape, seed):
    return masks.GENERATORS[name](shape, np.random.default_rng(seed))


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(masks.GENERATORS)), shape=SHAPES, seed=st.integers(0, 2**32))
def test_masks_are_pure_functions_of_shape_and_seed(name, shape, seed):
    mask = draw(name, shape, seed)
    assert mask.shape == shape and mask.dtype == bool and mask.flags.writeable
    np.testing.assert_array_equal(mask, draw(name, shape, seed))
    if name not in ("nothing",) and not (shape[0] == 1 and name == "cinemagraph"):
        assert mask.any() or name in ("boxes", "brushes")
    known_ends = name == "between" and shape[0] == 2
    assert (
        not mask.all() or shape[0] == 1 or known_ends or name in ("boxes", "brushes", "outpainting")
    )


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
def test_what_each_task_shows(shape, seed):
    frames = shape[0]
    image = draw("first_frame", shape, seed)
    assert image[0].all() and not image[1:].any()
    begun = draw("beginning", shape, seed).all(axis=(1, 2))
    known = begun.sum()
    assert 1 <= known <= max(frames // 2, 1) and begun[:known].all()
    ends = draw("between", shape, seed)
    assert ends[0].all() and ends[-1].all() and not ends[1:-1].any()
    still = draw("cinemagraph", shape, seed)
    assert still[0].all()
    assert (still[1:] == still[-1:]).all() and (frames == 1 or not still[-1].all())
    strokes = draw("brushes", shape, seed)
    assert (strokes == strokes[0]).all()
    border = draw("outpainting", shape, seed)
    assert (border == border[0]).all()
    rows, columns = border[0].all(axis=1), border[0].all(axis=0)
    known = rows if rows.any() and not rows.all() else columns
    assert (np.diff(np.flatnonzero(known)) == 1).all()  # one piece
    assert not draw("nothing", shape, seed).any()


@pytest.mark.parametrize("name", ["boxes", "brushes", "cinemagraph", "outpainting"])
def test_unknown_parts_are_neither_specks_nor_everything(name):
    unknown = [1 - draw(name, (8, 32, 32), seed)[1:].mean() for seed in range(200)]
    assert 0.08 < np.mean(unknown) < 0.6
    assert np.mean(np.array(unknown) > 0.95) < 0.02


def test_a_mix_draws_tasks_by_their_weights():
    mix = masks.MaskMix({"first_frame": 3, "nothing": 1, "boxes": 0})
    known = np.array([mix((4, 8, 8), seed).mean() for seed in range(400)])
    assert set(known) == {0.25, 0.0}
    assert 0.68 < (known == 0.25).mean() < 0.82
    assert mix((4, 8, 8), 0).shape == (4, 8, 8, 1)
    np.testing.assert_array_equal(mix((4, 8, 8), 5), mix((4, 8, 8), 5))


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"inpainting": 1}, "masks.inpainting is unknown"),
        ({"boxes": -1}, "0 or more"),
        ({"boxes": 0}, "not all 0"),
        ({}, "not all 0"),
        ({"boxes": float("nan")}, "0 or more"),
    ],
)
def test_weights_that_are_no_shares_are_told(weights, message):
    with pytest.raises(UserError, match=message):
        masks.MaskMix(weights)

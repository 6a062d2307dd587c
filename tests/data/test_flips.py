import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumiere_jax.data.flips import names_a_side
from lumiere_jax.data.scene import DIRECTIONS

SIDES = (
    """
a ball moving left|the right-hand door|LEFTMOST tree|turns rightwards|stage-left exit
top_left corner|left2right pan|a wheel turning clockwise|counter-clockwise|anticlockwise spin
portside of a ship|starboard light|pan L/R|up‑left|ｌｅｆｔ arrow|left–right
the righthand lane|lefts and rights|le\u00adft
nach links|à gauche|a la derecha|向左走|右|오른쪽으로|поворот направо|sola dönüyor
a neon sign|the word HELLO|a shirt that says "go"|a license plate|“open”|bottom-right
""".strip()
    .replace("\n", "|")
    .split("|")
)
NO_SIDES = (
    """
a bright light|copyright free|an upright piano|leftovers on a plate|alright|a dog runs up the hill
brightly lit room|a plight|cleft rock|a righteous man|moving up|moving down|standing still||a theft
frightened horse|a ship in a port|12345|🎈🎈|das Licht|recht
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("caption", SIDES)
def test_captions_that_name_a_side(caption):
    assert names_a_side(caption)


@pytest.mark.parametrize("caption", NO_SIDES)
def test_captions_that_name_none(caption):
    assert not names_a_side(caption)


@given(
    word=st.sampled_from(["left", "right", "clockwise", "gauche"]),
    before=st.text(max_size=5),
    after=st.text(max_size=5),
)
def test_a_side_is_found_whatever_stands_around_it(word, before, after):
    for form in (word, word.upper(), word.title()):
        assert names_a_side(f"{before} {form} {after}")
        assert names_a_side(f"{before}_{form}7{after}")


@given(st.text())
def test_any_text_is_taken_and_its_compatibility_form_means_the_same(text):
    assert names_a_side(text) == names_a_side(unicodedata.normalize("NFKC", text))


def test_directions_of_moving_shapes():
    sideways = {name for name, (x, _) in DIRECTIONS.items() if x}
    for name in DIRECTIONS:
        assert names_a_side(f"a small red square moving {name}") == (name in sideways)

"""Which captions a mirrored clip would make false."""

import re
import unicodedata

_SIDES = (
    # "leftmost", "right-hand", "stage-left", "rightwards": by their beginning, see `_STEMS`.
    "clockwise counterclockwise anticlockwise portside starboard eastward eastwards eastbound "
    "westward westwards westbound lhs rhs l r "
    # The two words in other languages.
    "links linke linken linker linkes linkerhand rechts rechte rechten rechter rechtes rechterhand "
    "gauche droite izquierda izquierdo derecha derecho sinistra sinistro destra destro "
    "esquerda esquerdo direita direito влево вправо слева справа налево направо левый правый левая "
    "правая sol sola sağ sağa lewo lewa lewy prawo prawa prawy vänster höger يسار يمين שמאל ימין"
).split()
_WRITING = (
    "text texts letter letters lettering letterings word words sign signs signboard signage logo "
    "logos title titles subtitle subtitles caption captions reads spelling spells written writing "
    "number numbers digit digits license license watermark banner poster headline"
).split()
_WORDS = frozenset(_SIDES + _WRITING)
_STEMS = ("left", "right")
_UNRELATED = "leftover leftovers righteous righteously righteousness rightful rightfully".split()
_CHARACTERS = re.compile('[左右"“”„«»「」『』]|왼쪽|오른쪽')


def names_a_side(caption: str) -> bool:
    """Whether a mirrored clip could make a caption false.

    True for left and right in all their forms and a few other languages, for turns and ships'
    sides, and for writing, which nobody can read in a mirror. A caption that uses such a word in
    another sense counts as well: a clip that is not mirrored is no loss. Case, compatibility forms,
    digits and punctuation make no difference.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", caption).casefold())
    if _CHARACTERS.search(text):
        return True
    # Format characters, such as soft hyphens, stand inside words.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    words = re.split(r"[\W\d_]+", text)
    return any(
        word in _WORDS or (word.startswith(_STEMS) and word not in _UNRELATED) for word in words
    )

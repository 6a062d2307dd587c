"""A user study by two-alternative forced choice: its design, and what its answers say.

[N] Raters see two videos made for the same prompt, by this model and by a baseline, and choose one;
about 400 judgements for each baseline, shown as bars of percentages of preference.
[C] The wording of the questions, the three of them being asked one by one, the attention checks and
the order of the pairs.
"""

import collections
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

# In an attention check the other video is a still picture of noise. Where the intact one shows
# something that stands still, as some prompts want, neither moves better.
CHECK_QUESTIONS = ("quality", "text")
CONFIDENCE = 0.95
_MASK = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked about a pair: `name` (in files and results) and `text` (on the page)."""

    name: str
    text: str


QUESTIONS = (
    Question("quality", "Which video looks better?"),
    Question("motion", "Which video moves better: more motion, and more natural?"),
    Question("text", "Which video fits the text better?"),
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two videos for one prompt.

    An attention check is a pair without a baseline, where `ours` is the video that is intact and
    `other` the one that is plainly broken.
    """

    key: str  # says nothing about the methods, as raters may see it
    name: str  # of the videos in their folders
    baseline: str | None  # method that `ours` is compared with; None for an attention check
    prompt: str  # what the videos were made for
    ours: str  # file name of a video; it too says nothing about the method
    other: str  # file name of the other video

    @property
    def is_check(self) -> bool:
        """Whether it is an attention check."""
        return self.baseline is None

    @property
    def videos(self) -> tuple[str, str]:
        """Both file names, in an order that says nothing about the methods."""
        first, second = sorted((self.ours, self.other))
        return first, second


@dataclasses.dataclass(frozen=True)
class Study:
    """All that is fixed before the first rater comes."""

    title: str  # heading of the page
    seed: int  # of sides and orders
    methods: tuple[str, ...]  # name of this model, then of each baseline
    questions: tuple[Question, ...]  # asked about every pair, in this order
    pairs: tuple[Pair, ...]  # with the attention checks
    pairs_per_rater: int | None = None  # that one rater gets, checks not counted; None for all

    @property
    def key(self) -> str:
        """16 hexadecimal digits that differ between studies whose answers cannot be merged."""
        design = self.to_dict()
        del design["title"], design["pairs_per_rater"]
        return hashlib.sha256(json.dumps(design, sort_keys=True).encode()).hexdigest()[:16]

    def pair(self, key: str) -> Pair | None:
        """The pair of this key, or None."""
        return next((pair for pair in self.pairs if pair.key == key), None)

    @property
    def num_pairs_per_rater(self) -> int:
        """How many pairs one rater sees, attention checks included."""
        checks = sum(pair.is_check for pair in self.pairs)
        return min(self.pairs_per_rater or len(self.pairs), len(self.pairs) - checks) + checks

    def to_dict(self) -> dict[str, Any]:
        """The study in plain lists and dictionaries."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Study":
        """The inverse of `to_dict`; KeyError or TypeError if a field is missing or wrong."""
        lists = {
            "methods": tuple(fields["methods"]),
            "questions": tuple(Question(**question) for question in fields["questions"]),
            "pairs": tuple(Pair(**pair) for pair in fields["pairs"]),
        }
        return cls(**{**fields, **lists})


def draw(*parts: object) -> int:
    """A 32-bit number that looks random and depends on nothing but `parts`.

    FNV-1a of the parts, joined by slashes, with the finish of MurmurHash3. The exported page draws
    the same numbers without a server, so `assets/local_answers.js` has this function again.
    """
    value = 2166136261
    for byte in "/".join(map(str, parts)).encode():
        value = (value ^ byte) * 16777619 & _MASK
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def left_video(study: Study, rater: str, pair: Pair) -> str:
    """The video that this rater sees on the left; both are equally likely."""
    return pair.videos[draw("side", study.seed, rater, pair.key) & 1]


def right_video(study: Study, rater: str, pair: Pair) -> str:
    """The video that this rater sees on the right."""
    return pair.videos[1 - (draw("side", study.seed, rater, pair.key) & 1)]


def arrange(study: Study, rater: str, counts: Mapping[str, int] | None = None) -> list[Pair]:
    """The pairs that a rater gets, in their order.

    Those with the fewest judgements come first, in random order among equals. Every rater gets all
    attention checks, spread evenly, and none before the first pair. `counts` are judgements so
    far, by key of the pair; a missing one counts as 0.
    """

    def order(pair: Pair) -> tuple:
        return draw("order", study.seed, rater, pair.key), pair.key

    counts = counts or {}
    judged = [pair for pair in study.pairs if not pair.is_check]
    judged.sort(key=lambda pair: (counts.get(pair.key, 0), *order(pair)))
    judged = judged[: study.pairs_per_rater]
    checks = sorted((pair for pair in study.pairs if pair.is_check), key=order)
    arranged = list(judged)
    # From the end, so that what was inserted does not move the places that are still to come.
    for i in reversed(range(len(checks))):
        begin, end = (n * len(judged) // len(checks) for n in (i, i + 1))
        offset = draw("check", study.seed, rater, checks[i].key) % max(1, end - begin)
        arranged.insert(begin + offset + 1, checks[i])
    return arranged


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One answer of one rater."""

    rater: str
    pair: str  # its key
    question: str  # its name
    chosen: str  # the file name of a video, as `left`
    left: str
    answered_at: int  # Unix time in milliseconds


def merge(judgements: Iterable[Judgement]) -> list[Judgement]:
    """One judgement for each rater, pair and question: the latest."""
    latest: dict[tuple[str, str, str], Judgement] = {}
    for new in judgements:
        place = (new.rater, new.pair, new.question)
        old = latest.get(place)
        if old is None or (new.answered_at, new.chosen) > (old.answered_at, old.chosen):
            latest[place] = new
    return list(latest.values())


def wilson_interval(
    successes: int, total: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Wilson's score interval for a share of independent trials (E. B. Wilson, JASA 22, 1927).

    It is (0, 1) if there are none.
    """
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes in {total} trials")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = successes / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    # At the ends the bound is exact, and rounding must not leave it a hair away.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return low, high


def wrong_checks(study: Study, judgements: Iterable[Judgement]) -> dict[str, int]:
    """For each rater who met an attention check, how many answers chose the broken video.

    Only answers to `CHECK_QUESTIONS` count: who chooses by chance gets half of two for each check
    wrong, and passes three checks with at most one wrong answer in 11% of cases, with none in 2%.
    """
    broken = {pair.key: pair.other for pair in study.pairs if pair.is_check}
    wrong: collections.Counter[str] = collections.Counter()
    for judgement in judgements:
        if judgement.pair in broken and judgement.question in CHECK_QUESTIONS:
            wrong[judgement.rater] += judgement.chosen == broken[judgement.pair]
    return dict(wrong)


def summarize(
    study: Study, judgements: Sequence[Judgement], max_wrong_checks: int = 1
) -> dict[str, Any]:
    """What the answers say, with and without the raters who failed the attention checks.

    There is one judgement for each rater, pair and question, as `merge` gives them. A rater with
    more than `max_wrong_checks` wrong answers to attention checks is left out.

    `raters` are who answered, who was left out (with the number of wrong answers), and how many met
    no check yet; `results` for each baseline and question the counts `kept` and `all`.
    """
    wrong = wrong_checks(study, judgements)
    excluded = {rater: count for rater, count in wrong.items() if count > max_wrong_checks}
    raters = sorted({judgement.rater for judgement in judgements})
    rows = []
    for baseline in study.methods[1:]:
        ours = {pair.key: pair.ours for pair in study.pairs if pair.baseline == baseline}
        for question in study.questions:
            answers = [j for j in judgements if j.pair in ours and j.question == question.name]
            kept = [judgement for judgement in answers if judgement.rater not in excluded]
            rows.append(
                {"baseline": baseline, "question": question.name}
                | {"kept": _counts(kept, ours), "all": _counts(answers, ours)}
            )
    return {
        "study": study.key,
        "title": study.title,
        "methods": list(study.methods),
        "confidence": CONFIDENCE,
        "max_wrong_checks": max_wrong_checks,
        "raters": {
            "answered": len(raters),
            "kept": len(raters) - len(excluded),
            "without_check": len(set(raters) - set(wrong)),
            "excluded": dict(sorted(excluded.items())),
        },
        "results": rows,
    }


def _counts(judgements: Sequence[Judgement], ours: Mapping[str, str]) -> dict[str, Any]:
    """How often each side won; shares in percent."""
    wins, total = sum(j.chosen == ours[j.pair] for j in judgements), len(judgements)
    low, high = wilson_interval(wins, total)
    return {
        "ours": wins,
        "baseline": total - wins,
        "percent_ours": 100 * wins / total if total else None,
        "interval": [100 * low, 100 * high],
        "raters": len({judgement.rater for judgement in judgements}),
        "on_the_left": sum(j.left == ours[j.pair] for j in judgements),
    }

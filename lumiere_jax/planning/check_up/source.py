"""What a look at the source tells: sizes, rates and captions against what is asked of them."""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.data import moving_digits, ucf101
from lumiere_jax.data.config import DataConfig
from lumiere_jax.data.folder import FolderReport
from lumiere_jax.data.image_folder import ImageFolder
from lumiere_jax.data.limits import Limits, changes, repeated
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.data.prepared import Prepared
from lumiere_jax.data.scene_captions import parse_caption
from lumiere_jax.data.source import HoldsFrames, Source
from lumiere_jax.data.sources import names
from lumiere_jax.data.video_folder import VideoFolder
from lumiere_jax.inference import vocabulary
from lumiere_jax.planning.check_up.finding import Finding, Verdict, at_most
from lumiere_jax.runtime.errors import UserError

_FILES = 256  # whose sizes, rates and captions are looked at
_CLIPS = 4  # that are read whole
_DRAWN = frozenset({"moving_shapes", "moving_digits"})
_VIDEOS = frozenset({"video_folder", "ucf101"})  # no clip of theirs is a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What some clips of a source are."""

    name: str  # of the source, as in `config.data.name`
    captions: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width) of files, where they are known
    rates: tuple[float, ...] = ()  # frames a second of files, where they are known
    repeats: float = 0.0  # share of frames that are the same as the one before
    report: FolderReport | None = None  # of a folder
    limits: Limits | None = None  # that prepared clips were made with


def look(source: Source, data: DataConfig) -> list[Look]:
    """Looks at files and clips of each source, evenly spread; a few seconds of decoding."""
    parts = source.sources if isinstance(source, Mixture) else (source,)
    return [_look_at(part, name) for part, name in zip(parts, names(data), strict=True)]


def _look_at(source: Source, name: str) -> Look:
    places = np.unique(np.linspace(0, len(source) - 1, _FILES).astype(int)).tolist()
    clips = [_bytes(source, index) for index in places[:: -(-len(places) // _CLIPS)]]
    same = [step for frames, _ in clips for step in repeated(changes(frames))]
    told = {"captions": tuple(caption for _, caption in clips)} | _files(source, places)
    return Look(name=name, repeats=float(np.mean(same)) if same else 0.0, **told)


def _files(source: Source, places: Sequence[int]) -> dict[str, Any]:
    """What is known of the files of some clips, as fields of `Look`."""
    if isinstance(source, Prepared):
        return {"limits": source.limits}
    if isinstance(source, ucf101.Ucf101):
        return {"sizes": (ucf101.SIZE,), "rates": (ucf101.RATE,), "report": source.report}
    if not isinstance(source, VideoFolder | ImageFolder):
        return {}
    captions = tuple(caption for i in places for caption in source.file(i).captions)
    told = {"captions": captions, "report": source.report}
    if isinstance(source, ImageFolder):
        return told | {"sizes": tuple(source.file(i).facts for i in places)}
    infos = [source.file(i).facts for i in places]
    return told | {"sizes": tuple(info.size for info in infos),
                   "rates": tuple(info.fps for info in infos)}  # fmt: skip


def _bytes(source: Source, index: int) -> tuple[np.ndarray, str]:
    if isinstance(source, HoldsFrames):
        return source.frames(index)
    video, caption = source.example(index)
    return to_uint8(video), caption


def findings(looks: Sequence[Look], config: StageConfig) -> Iterator[Finding]:
    """All rows about a source, for each of several; rows of several say which."""
    for seen in looks:
        suffix = f" ({seen.name})" if len(looks) > 1 else ""
        for row in (*sizes(seen, config.data), *rates(seen, config.data), *repeats(seen, config),
                    *left_out(seen), *captions(seen, config)):  # fmt: skip
            yield dataclasses.replace(row, name=row.name + suffix)


def sizes(seen: Look, data: DataConfig) -> Iterator[Finding]:
    """Files that are enlarged, from which super-resolution learns blur."""
    if not seen.sizes:
        return
    areas = sorted(seen.sizes, key=lambda size: size[0] * size[1])
    (low, narrow), (high, wide) = areas[0], areas[-1]
    scales = [data.resolution / min(size) for size in seen.sizes]
    enlarged = float(np.mean([scale > 1 for scale in scales]))
    told = f", up to {max(scales):.1f}×" if enlarged else ""
    yield Finding(
        "size of the source",
        f"{narrow}×{low} to {wide}×{high} for {data.resolution}×{data.resolution}; "
        f"{enlarged:.0%} are enlarged{told}",
        at_most(enlarged, 0.0, 0.05),
        "what is enlarged is blurred, and blur is learnt: leave config.data.min_size at 0, which "
        "leaves such files out, or train at a lower resolution",
    )


def rates(seen: Look, data: DataConfig) -> Iterator[Finding]:
    """Files of a lower rate, whose frames are shown twice; a base stage learns to stutter."""
    if not seen.rates or data.num_frames == 1:
        return
    low, high = min(seen.rates), max(seen.rates)
    slow = float(np.mean([rate < 0.9 * data.fps for rate in seen.rates]))
    told = f"; the slowest repeats {1 - low / data.fps:.0%} of its frames" if slow else ""
    yield Finding(
        "rate of the source",
        f"{low:.4g} to {high:.4g} frames/s for {data.fps:g}; {slow:.0%} are slower{told}",
        at_most(slow, 0.0, 0.05),
        "frames that are shown twice teach to stutter: leave config.data.min_rate at 0.9, or train "
        f"at --config.data.fps={low:.3g}",
    )


def repeats(seen: Look, config: StageConfig) -> Iterator[Finding]:
    """Frames that are the same as the one before, whatever the files say of their rate."""
    if seen.name in _DRAWN or config.data.num_frames == 1:
        return
    unchecked = seen.limits is not None and (
        seen.limits.min_rate < 0.5 or seen.limits.max_repeats > 0.5 or seen.limits.min_size == 1
    )
    told = "; prepared without limits for size and rate" if unchecked else ""
    verdict = at_most(seen.repeats, 0.05, 0.25)
    yield Finding(
        "repeated frames",
        f"{seen.repeats:.0%} of the frames in {_CLIPS} clips are the same as the one before{told}",
        "look" if unchecked and verdict == "ok" else verdict,
        "look at the clips with python -m lumiere_jax.show_data; config.data.max_repeats leaves "
        "such videos out, or prepare the clips again",
    )


def left_out(seen: Look) -> Iterator[Finding]:
    """Files of a folder that are not used."""
    report = seen.report
    if report is None:
        return
    share = len(report.skipped) / max(len(report.skipped) + report.used, 1)
    told = f": {report.summary()}" if report.skipped else ""
    yield Finding(
        "files left out",
        f"{share:.0%}, {report.used} are used{told}",
        "ok" if share <= 0.1 else "look",
        "the start of the run lists every one, with its reason",
    )


def captions(seen: Look, config: StageConfig) -> Iterator[Finding]:
    """Whether captions say anything, and fit the text encoder."""
    distinct, lengths = set(seen.captions), [len(caption.split()) for caption in seen.captions]
    most, longest = config.text.max_length, max(lengths)
    share = len(distinct) / len(seen.captions)
    is_said = min(lengths) > 0 and (len(distinct) > 1 or len(seen.captions) == 1)
    long = float(np.mean([length >= most for length in lengths]))
    verdict: Verdict = "wrong" if not is_said else "look" if long > 0.05 or share < 0.05 else "ok"
    yield Finding(
        "captions",
        f"{len(distinct)} different of {len(seen.captions)}, of {statistics.median(lengths):g} "
        f"words, at most {longest}, as {seen.captions[0]!r}",
        verdict,
        f"clips that share a caption, or whose caption is empty or above {most} words "
        "(text.max_length), teach little of text",
    )


def prompts(config: StageConfig) -> Iterator[Finding]:
    """Whether the prompts of training samples are about what the clips show."""
    if config.ssr:  # which refines clips of the source
        return
    given, sources = config.sampling.prompts, set(names(config.data))
    drawn = [prompt for prompt in given if _is_drawn(prompt)]
    doubts = [prompt for prompt in given if vocabulary.doubt(config, prompt)]
    told = f"{len(given)}, as {given[0]!r}" if given else "captions of held-out clips"
    verdict: Verdict = "ok"
    if drawn and not sources & _DRAWN:
        verdict = "wrong"
        told = f"{len(drawn)} of {len(given)} are about drawn shapes or digits, which no clip shows"
    elif doubts:
        verdict, told = "wrong", f"{len(doubts)} of {len(given)} use words that no caption has"
    yield Finding(
        "sample prompts",
        told,
        verdict,
        "samples would tell nothing of the run: --config.sampling.prompts=() takes the captions of "
        "held-out clips",
    )


def _is_drawn(prompt: str) -> bool:
    """Whether a prompt is a caption of a source that draws its clips."""
    for parse in (parse_caption, moving_digits.parse_caption):
        try:
            parse(prompt)
        except UserError:
            continue
        return True
    return False


def pictures(config: StageConfig) -> Iterator[Finding]:
    """Whether an image stage sees pictures with captions of their own."""
    if config.stage not in ("t2i", "t2i_ssr") or config.data.num_frames != 1:
        return
    found = names(config.data)
    is_video = [name in _VIDEOS for name in found]
    yield Finding(
        "pictures",
        f"{sum(is_video)} of {len(found)} sources give frames of videos ({', '.join(found)})",
        "look" if all(is_video) else "ok",
        "captions of videos tell of motion, which no frame shows, and videos are few and blurred "
        "beside pictures: mix in pairs of images and texts, --config.data.name=image_folder or "
        "mixture (docs/data.md)",
    )

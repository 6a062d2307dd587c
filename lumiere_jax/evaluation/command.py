"""What `python -m lumiere_jax.eval` does: generates if a task asks for it, extracts, scores."""

import dataclasses
import datetime
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumiere_jax.evaluation import card, clips, networks, scoring, tasks
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.evaluation.features import READER, Features, extract
from lumiere_jax.evaluation.networks import FeatureNetwork, c3d_network, i3d_network
from lumiere_jax.evaluation.profiles import Profile
from lumiere_jax.metrics.frechet import Moments
from lumiere_jax.runtime.distributed import is_primary, say, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.preemption import Interruption

NOT_COMPARABLE = "not to be compared with the IS of papers, which is C3D's"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to score, and how."""

    output: Path  # folder for videos, features and the card; an interrupted run continues there
    generated: tuple[Path, ...] = ()  # folders of generated videos; empty where `task` makes them
    task: tasks.Task | None = None  # makes videos, or None
    real: Path | None = None  # folder of real videos; None for none, or where `task` makes them
    real_list: Path | None = None  # see `clips.choose`
    real_statistics: Path | None = None  # file of saved moments, in place of `real`
    save_statistics: Path | None = None  # where to save the moments of `real`
    max_real: int | None = None  # at most this many, see `clips.choose`
    max_generated: int | None = None  # as `max_real`
    skip_unusable: bool = False  # see `clips.Choice.examined`
    rule: ClipRule  # which clips
    profile_name: str  # of `profile`
    profile: Profile  # how FVD is computed
    i3d_weights: Path | None = None  # see `i3d_weights.load`
    c3d_weights: tuple[Path, Path] | None = None  # of C3D and their mean; None to leave IS out
    is_splits: int = 1  # parts of the Inception Score
    is_epsilon: float = 0.0  # of the Inception Score
    bootstrap: int = 0  # draws for the standard error of FVD


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What the scores are computed from."""

    moments: Moments | None  # of the real videos, from now or from before
    real: Features | None
    generated: list[Features]
    c3d: list[Features]  # of the generated videos; empty without weights of C3D
    model: dict[str, Any]  # what generated, for the card


def evaluate(settings: Settings) -> dict[str, Any]:
    """Does what is not done yet, writes the card, prints it and returns it."""
    begin, date = time.monotonic(), datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    output = settings.output.expanduser()
    settings = dataclasses.replace(settings, output=output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be used as a folder ({error}).") from error
    _check(settings)
    with Interruption() as interruption:
        sets = _sets(settings, interruption.poll)
        i3d, c3d = _networks(settings)
        notes = _notes(settings, i3d)
        moments = _saved_moments(settings.real_statistics, notes)
        if settings.task is not None:  # as late as it can be, since it takes hours
            sets = _generate(settings, settings.task, sets.real, interruption.poll)
        measured = _measure(settings, i3d, c3d, moments, sets, interruption.poll)
    result: dict[str, Any] = {}
    if is_primary():
        if settings.save_statistics is not None and measured.moments is not None:
            measured.moments.save(settings.save_statistics, **notes)
            print(settings.save_statistics)
        result = {
            "scores": _scores(settings, measured),
            "protocol": _protocol(settings, measured, [i3d, c3d]),
            "warnings": _warnings(settings, measured),
        }
        if settings.task is not None and settings.task.name == tasks.UCF101:
            result["published"] = card.published_section(result["protocol"])
        result |= {"model": measured.model} if measured.model else {}
        result["run"] = card.run_section(time.monotonic() - begin, date)
        print(card.write(output, result))
        print(output / "card.json")
    wait_for_all("card")
    return result


@dataclasses.dataclass(frozen=True)
class _Sets:
    """The videos to score."""

    generated: list[clips.VideoSet]
    real: clips.VideoSet | None
    model: dict[str, Any]  # what generated, for the card


def _check(settings: Settings) -> None:
    """Refuses what can be seen to be wrong before videos are opened and networks are loaded."""
    networks.check_num_frames(networks.I3D, settings.rule.num_frames)
    if settings.c3d_weights is not None:
        networks.check_num_frames(networks.C3D, settings.rule.num_frames)
    networks.check_files(settings.i3d_weights, settings.c3d_weights)
    if settings.real_statistics is not None:
        Moments.load(settings.real_statistics)
    if settings.task is not None:
        settings.task.check(settings.rule)


def _sets(settings: Settings, poll: Callable[[], None]) -> _Sets:
    """Finds the videos that are there; all folders are looked into before the first video is."""
    real = None if settings.real is None else _real(settings, settings.real)
    generated = [_generated(settings, folder) for folder in settings.generated]
    real_set = None if real is None else _examined(settings, real, poll)
    return _Sets([_examined(settings, choice, poll) for choice in generated], real_set, {})


def _generate(
    settings: Settings, task: tasks.Task, real: clips.VideoSet | None, poll: Callable[[], None]
) -> _Sets:
    """The videos that a task makes, and real ones; `real` are those that were given."""
    made = task.prepare(settings.output, poll)
    generated = [_generated(settings, folder) for folder in made.generated]
    if made.real is not None:
        real = _examined(settings, _real(settings, made.real), poll)
    return _Sets([_examined(settings, choice, poll) for choice in generated], real, made.model)


def _real(settings: Settings, folder: Path) -> clips.Choice:
    listed, most, skip = settings.real_list, settings.max_real, settings.skip_unusable
    return clips.choose("real", folder, listed=listed, most=most, skip_unusable=skip)


def _generated(settings: Settings, folder: Path) -> clips.Choice:
    return clips.choose("generated", folder, most=settings.max_generated)


def _examined(settings: Settings, choice: clips.Choice, poll: Callable[[], None]) -> clips.VideoSet:
    return choice.examined(settings.rule, settings.skip_unusable, poll)


def _measure(
    settings: Settings,
    i3d: FeatureNetwork,
    c3d: FeatureNetwork | None,
    moments: Moments | None,
    sets: _Sets,
    poll: Callable[[], None],
) -> _Measured:
    """Extracts the features of the videos."""
    features_of = functools.partial(
        extract, rule=settings.rule, cache=settings.output / "features", poll=poll
    )
    generated = [features_of(videos, network=i3d) for videos in sets.generated]
    real = None if sets.real is None else features_of(sets.real, network=i3d)
    c3d_features = [features_of(videos, network=c3d) for videos in sets.generated] if c3d else []
    if real is not None:
        moments = real.moments
    return _Measured(moments, real, generated, c3d_features, sets.model)


def _networks(settings: Settings) -> tuple[FeatureNetwork, FeatureNetwork | None]:
    """I3D, and C3D where its weights are given."""
    say("loading the weights of I3D; compiling comes with the first batch, and takes a minute")
    i3d = i3d_network(settings.profile, settings.i3d_weights)
    return i3d, None if settings.c3d_weights is None else c3d_network(*settings.c3d_weights)


def _notes(settings: Settings, network: FeatureNetwork) -> dict[str, str]:
    """What features of real videos depend on, besides the videos: kept with statistics."""
    rule = {name: str(value) for name, value in dataclasses.asdict(settings.rule).items()}
    return {"network": network.fingerprint, **network.options, **rule, "reader": str(READER)}


def _saved_moments(path: Path | None, notes: dict[str, str]) -> Moments | None:
    """Statistics of real videos from before, made in the same way."""
    if path is None:
        return None
    moments, before = Moments.load(path)
    if changed := [name for name in notes if before.get(name) != notes[name]]:
        was = {name: before.get(name, "not stated") for name in changed}
        shown = ", ".join(f"{name} {was[name]}, now {notes[name]}" for name in changed)
        raise UserError(
            f"--real_statistics={path} were made with other settings, or by another version that "
            f"read videos otherwise ({shown}); use the same flags, or the videos themselves."
        )
    return moments


def _scores(settings: Settings, measured: _Measured) -> dict[str, Any]:
    """All scores that can be computed from the features."""
    moments, real = measured.moments, measured.real
    scores, logits = [], [features.logits for features in measured.generated]
    if moments is not None:
        kept = None if real is None else real.logits
        ddof, bootstrap = settings.profile.ddof, settings.bootstrap
        scores.append(scoring.fvd(moments, kept, logits, ddof, bootstrap))
    if real is not None:
        scores.append(scoring.kvd(real.logits, logits))
    inception_score = functools.partial(
        scoring.inception_scores, splits=settings.is_splits, epsilon=settings.is_epsilon
    )
    if measured.c3d:
        scores.append(inception_score("IS", [features.logits for features in measured.c3d]))
    scores.append(inception_score("IS-I3D-K400", logits, note=NOT_COMPARABLE))
    return card.scores_section(scores)


def _warnings(settings: Settings, measured: _Measured) -> list[str]:
    """What makes the figures doubtful."""
    real = [measured.real] if measured.real else []
    warnings = scoring.warnings(
        None if measured.moments is None else measured.moments.count,
        [len(features.logits) for features in measured.generated],
        {part.videos.label: part.videos.fps for part in [*real, *measured.generated]},
        settings.rule.fps is not None,
    )
    warnings += [
        f"no pixel of {features.videos.folder} is brighter than {features.brightest} of 255: were "
        "values between 0 and 1 written as bytes?"
        for features in [*measured.generated, *real]
        if features.is_dark
    ]
    if measured.moments is None:
        warnings.append("no real videos were given (--real), so there is no FVD")
    return warnings + (settings.task.warnings if settings.task else [])


def _protocol(
    settings: Settings, measured: _Measured, networks: list[FeatureNetwork | None]
) -> dict[str, Any]:
    """All that the scores depend on."""
    rule, task, generated = settings.rule, settings.task, measured.generated
    real = None
    if settings.real_statistics is not None and measured.moments is not None:
        real = {"statistics": str(settings.real_statistics), "videos": measured.moments.count}
    elif measured.real is not None:
        listed = None if settings.real_list is None else settings.real_list.name
        real = {**_describe(measured.real, settings.max_real), "list": listed}
    return {
        "task": task.name if task else "folders",
        **(task.protocol if task else {}),
        "generated": [_describe(features, settings.max_generated) for features in generated],
        "real": real,
        "clip": {
            "frames": rule.num_frames,
            "fps": "native" if rule.fps is None else rule.fps,
            "stride": rule.stride,
            "position": rule.position + f" (seed {rule.seed})" * (rule.position == "random"),
            "crop": f"central, to {rule.aspect}" if rule.aspect else "none",
            "size": "native" if rule.size is None else "×".join(map(str, rule.size)),
        },
        "profile": settings.profile_name,
        "fvd": dataclasses.asdict(settings.profile),
        "inception_score": {"splits": settings.is_splits, "epsilon": settings.is_epsilon},
        "networks": [{"name": n.name, "sha256": n.fingerprint, **n.options} for n in networks if n],
    }


def _describe(features: Features, most: int | None) -> dict[str, Any]:
    videos, (low, high) = features.videos, features.videos.fps
    return {
        "folder": str(videos.folder),
        "videos": len(videos.names),
        "left_out": videos.left_out,
        "chosen_at_random": most is not None,
        "file_fps": f"{low:g}" if low == high else f"{low:g} to {high:g}",
        "pixels": list(features.sizes),
        "changed": list(videos.treated),
        "values": f"{features.darkest} to {features.brightest}",
    }

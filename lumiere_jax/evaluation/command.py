"""The job of the eval binary: generate where a task asks for it, extract features, score, tell."""

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np

from lumiere_jax.evaluation import card, clips, scoring, tasks
from lumiere_jax.evaluation.clips import ClipRule, VideoSet
from lumiere_jax.evaluation.features import Features, extract
from lumiere_jax.evaluation.networks import FeatureNetwork, c3d_network, i3d_network
from lumiere_jax.evaluation.profiles import Profile
from lumiere_jax.metrics.frechet import Moments
from lumiere_jax.runtime.distributed import is_primary, say, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.preemption import Interruption

NOT_COMPARABLE = "not to be compared with the IS of papers, which is C3D's"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to score, and how.

    Attributes:
      output: folder for videos, features and the card; the same one goes on.
      generated: folders of generated videos; empty where `task` makes them.
      task: makes videos, or None.
      real: folder of real videos; None for none, or where `task` makes them.
      real_list: see `clips.find`.
      real_statistics: file of saved moments, in place of `real`.
      save_statistics: where to save the moments of `real`.
      max_real: see `clips.find`.
      max_generated: see `clips.find`.
      skip_unusable: see `clips.find`.
      rule: which clips.
      profile_name: of `profile`.
      profile: how FVD is computed.
      i3d_weights: see `i3d_weights.load`.
      c3d_weights: of C3D and their mean; None to leave IS out.
      is_splits: parts of the Inception Score.
      is_epsilon: of the Inception Score.
      bootstrap: draws for the standard error of FVD.
    """

    output: Path
    generated: tuple[Path, ...] = ()
    task: tasks.Task | None = None
    real: Path | None = None
    real_list: Path | None = None
    real_statistics: Path | None = None
    save_statistics: Path | None = None
    max_real: int | None = None
    max_generated: int | None = None
    skip_unusable: bool = False
    rule: ClipRule
    profile_name: str
    profile: Profile
    i3d_weights: Path | None = None
    c3d_weights: tuple[Path, Path] | None = None
    is_splits: int = 1
    is_epsilon: float = 0.0
    bootstrap: int = 0


def evaluate(settings: Settings) -> dict[str, Any]:
    """Does what is not done yet, writes the card and prints it.

    Returns:
      The card.

    Raises:
      UserError: if something is missing or does not fit.
    """
    begin, date = time.monotonic(), datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    _make_folder(settings.output)
    networks = _networks(settings)
    notes = _notes(settings, networks["i3d"])
    saved = _saved_moments(settings.real_statistics, notes)
    with Interruption() as interruption:
        poll = interruption.poll
        folders, real_folder, model = settings.generated, settings.real, {}
        if settings.task is not None:
            made = settings.task.prepare(settings.output, poll)
            folders, model = made.generated, made.model
            real_folder = made.real or real_folder
        generated = [
            clips.find("generated", folder, settings.rule, most=settings.max_generated,
                       skip_unusable=settings.skip_unusable, poll=poll)
            for folder in folders
        ]  # fmt: skip
        real = None
        if real_folder is not None:
            real = clips.find("real", real_folder, settings.rule, listed=settings.real_list,
                              most=settings.max_real, skip_unusable=settings.skip_unusable,
                              poll=poll)  # fmt: skip
        cache = settings.output / "features"

        def features_of(videos: VideoSet, network: FeatureNetwork) -> Features:
            return extract(videos, settings.rule, network, cache, poll)

        features = [features_of(videos, networks["i3d"]) for videos in generated]
        real_features = features_of(real, networks["i3d"]) if real else None
        c3d_logits = [
            features_of(videos, networks["c3d"]).logits for videos in generated if "c3d" in networks
        ]
    result: dict[str, Any] = {}
    if is_primary():
        moments = saved if real_features is None else real_features.moments
        if settings.save_statistics is not None:
            moments.save(settings.save_statistics, **notes)
            print(settings.save_statistics)
        result = _card(
            settings, networks, generated, features, real, real_features, moments, c3d_logits
        )
        if model:
            result["model"] = model
        result["run"] = card.run_section(time.monotonic() - begin, date)
        print(card.write(settings.output, result))
        print(settings.output / "card.json")
    wait_for_all("card")
    return result


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be used as a folder ({error}).") from error


def _networks(settings: Settings) -> dict[str, FeatureNetwork]:
    """The networks, made sure of before anything takes long."""
    say("loading the weights of I3D; compiling comes with the first batch, and takes a minute")
    networks = {"i3d": i3d_network(settings.profile, settings.i3d_weights)}
    if settings.c3d_weights is not None:
        networks["c3d"] = c3d_network(*settings.c3d_weights)
    for network in networks.values():
        network.check(settings.rule.num_frames)
    return networks


def _card(
    settings: Settings,
    networks: dict[str, FeatureNetwork],
    generated: list[VideoSet],
    features: list[Features],
    real: VideoSet | None,
    real_features: Features | None,
    moments: Moments | None,
    c3d_logits: list[np.ndarray],
) -> dict[str, Any]:
    """All of the card but the model and the run."""
    logits = [part.logits for part in features]
    ddof = settings.profile.ddof
    scores = []
    if moments is not None:
        kept = None if real_features is None else real_features.logits
        scores.append(scoring.fvd(moments, kept, logits, ddof, settings.bootstrap))
        if kept is not None:
            scores.append(scoring.kvd(kept, logits))
    options = {"splits": settings.is_splits, "epsilon": settings.is_epsilon}
    if c3d_logits:
        scores.append(scoring.inception_scores("IS", c3d_logits, **options))
    note = NOT_COMPARABLE
    scores.append(scoring.inception_scores("IS-I3D-K400", logits, note=note, **options))
    rates = {videos.label: videos.fps for videos in ([real] if real else []) + generated}
    warnings = scoring.warnings(
        None if moments is None else moments.count,
        [len(videos.videos) for videos in generated],
        rates,
        settings.rule.fps is not None,
    )
    for videos, part in zip([*generated, real], [*features, real_features], strict=True):
        if part is not None and part.is_dark:
            warnings.append(
                f"no pixel of {videos.folder} is brighter than {part.brightest} of 255: were "
                "values between 0 and 1 written as bytes?"
            )
    if moments is None:
        warnings.append("no real videos were given (--real), so there is no FVD")
    protocol = {
        "task": settings.task.name if settings.task else "folders",
        **(settings.task.protocol if settings.task else {}),
        "generated": [
            _describe(v, f, settings.max_generated)
            for v, f in zip(generated, features, strict=True)
        ],
        "real": _describe_real(settings, real, real_features, moments),
        "clip": _describe_rule(settings.rule),
        "profile": settings.profile_name,
        "fvd": {**dataclasses.asdict(settings.profile)},
        "inception_score": options,
        "networks": [
            {"name": n.name, "sha256": n.fingerprint, **n.options} for n in networks.values()
        ],
    }
    result = {"scores": card.scores_section(scores), "protocol": protocol, "warnings": warnings}
    if settings.task is not None and settings.task.name == tasks.UCF101:
        result["published"] = card.published_section(protocol)
    return result


def _notes(settings: Settings, network: FeatureNetwork) -> dict[str, str]:
    """What features of real videos depend on, besides the videos: kept with statistics."""
    return {"network": network.fingerprint, **network.options} | {
        name: str(value) for name, value in dataclasses.asdict(settings.rule).items()
    }


def _saved_moments(path: Path | None, notes: dict[str, str]) -> Moments | None:
    """Statistics of real videos from before, made sure of before anything takes long."""
    if path is None:
        return None
    moments, before = Moments.load(path)
    changed = [name for name in notes if before.get(name) != notes[name]]
    if changed:
        shown = ", ".join(f"{name} {before.get(name)}, now {notes[name]}" for name in changed)
        raise UserError(
            f"--real_statistics={path} were made otherwise ({shown}); use the same flags, or the "
            "videos themselves."
        )
    return moments


def _describe(videos: VideoSet, features: Features, most: int | None) -> dict[str, Any]:
    low, high = videos.fps
    return {
        "folder": str(videos.folder),
        "videos": len(videos.videos),
        "left_out": videos.left_out,
        "chosen_at_random": most is not None,
        "file_fps": f"{low:g}" if low == high else f"{low:g} to {high:g}",
        "pixels": list(features.sizes),
        "values": f"{features.darkest} to {features.brightest}",
    }


def _describe_real(
    settings: Settings, real: VideoSet | None, features: Features | None, moments: Moments | None
) -> dict[str, Any] | None:
    if settings.real_statistics is not None:
        return {"statistics": str(settings.real_statistics), "videos": moments.count}
    if real is None:
        return None
    listed = None if settings.real_list is None else settings.real_list.name
    return {**_describe(real, features, settings.max_real), "list": listed}


def _describe_rule(rule: ClipRule) -> dict[str, Any]:
    return {
        "frames": rule.num_frames,
        "fps": "native" if rule.fps is None else rule.fps,
        "stride": rule.stride,
        "position": rule.position + (f" (seed {rule.seed})" if rule.position == "random" else ""),
        "crop": f"central, to {rule.aspect}" if rule.aspect else "none",
        "size": "native" if rule.size is None else "×".join(map(str, rule.size)),
    }

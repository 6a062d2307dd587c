"""Scores from features: FVD, KVD and Inception Scores, with their uncertainty."""

import dataclasses

import numpy as np
from jaxtyping import Float

from lumiere_jax.metrics.frechet import (
    Moments,
    distance_of_gaussians,
    frechet_distance,
    kernel_distance,
)
from lumiere_jax.metrics.inception_score import inception_score

Features = Float[np.ndarray, "video channel"]

UNBIASED = (
    "an unbiased estimate: where the sets are alike it may be below 0, and for copies of the same "
    "videos it always is"
)

NUM_FEATURES = 400
"""Logits of I3D: with as few videos, or fewer, covariances are singular."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """A figure of one set of generated videos, or of several."""

    name: str  # "FVD", "KVD", "IS" or "IS-I3D-K400"
    values: tuple[float, ...]  # one for each set
    errors: tuple[float, ...] = ()  # standard error of each, or none
    errors_by: str = "bootstrap"  # or "jackknife"
    note: str = ""  # how to read it, if that needs to be said

    @property
    def mean(self) -> float:
        """Over the sets."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the sets, N - 1; None for one set."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def fvd(
    real: Moments,
    real_features: Features | None,
    generated: list[Features],
    ddof: int,
    bootstrap: int,
) -> Score:
    """FVD of each generated set.

    Without the real features, from which the `bootstrap` draws, only the generated ones are
    resampled; 0 draws give no error. `ddof` is that of the covariances.
    """
    values = [frechet_distance(real, Moments.of(features), ddof) for features in generated]
    errors = [
        bootstrap_error(real, real_features, features, ddof, bootstrap)
        for features in (generated if bootstrap else ())
    ]
    return Score(name="FVD", values=tuple(values), errors=tuple(errors))


def bootstrap_error(
    real: Moments,
    real_features: Features | None,
    generated: Features,
    ddof: int,
    repeats: int,
    seed: int = 0,
) -> float:
    """Standard error of FVD by drawing videos with replacement.

    Only the spread means something: FVD of drawn sets is biased upward, since they hold fewer
    different videos.
    """
    rng = np.random.default_rng(seed)

    def gaussian(features: Features) -> tuple[np.ndarray, np.ndarray]:
        drawn = features[rng.integers(len(features), size=len(features))].astype(np.float64)
        return drawn.mean(axis=0), np.cov(drawn, rowvar=False, ddof=ddof)

    known = (real.mean, real.covariance(ddof)) if real_features is None else None
    values = []
    for _ in range(repeats):
        of_real = known if real_features is None else gaussian(real_features)
        assert of_real is not None
        values.append(distance_of_gaussians(*of_real, *gaussian(generated)))
    return float(np.std(values, ddof=1))


def kvd(real_features: Features, generated: list[Features]) -> Score:
    """KVD of each generated set."""
    distances = [kernel_distance(real_features, features) for features in generated]
    errors = tuple(distance.error for distance in distances if distance.error is not None)
    return Score(
        name="KVD",
        values=tuple(distance.value for distance in distances),
        errors=errors if len(errors) == len(distances) else (),
        errors_by="jackknife",
        note=UNBIASED,
    )


def inception_scores(
    name: str, logits: list[Features], splits: int, epsilon: float, seed: int = 0, note: str = ""
) -> Score:
    """Inception Score of each generated set, shuffled first where there are several splits."""

    def score(features: Features) -> float:
        order = np.random.default_rng(seed).permutation(len(features))
        return inception_score(features[order] if splits > 1 else features, splits, epsilon)[0]

    return Score(name=name, values=tuple(score(features) for features in logits), note=note)


def warnings(
    real: int | None, generated: list[int], rates: dict[str, tuple[float, float]], resampled: bool
) -> list[str]:
    """What makes figures doubtful or not comparable.

    `real` and `generated` count videos; `rates` are the lowest and highest frame rate of files, by
    label, and `resampled` says whether all were brought to one.
    """
    told = []
    counts = {"generated": min(generated)} | ({} if real is None else {"real": real})
    for label, count in counts.items():
        if count <= NUM_FEATURES:
            told.append(
                f"{count} {label} videos are not more than the {NUM_FEATURES} features: the "
                "covariance is singular, and FVD ranks sets of this size at best"
            )
    if real is not None and any(count != real for count in generated):
        told.append(
            f"{real} real and {', '.join(map(str, generated))} generated videos: FVD falls with "
            "the number of videos, so compare only figures with the same numbers"
        )
    if len(set(generated)) > 1:
        told.append(f"the generated sets differ in size: {', '.join(map(str, generated))}")
    lowest, highest = min(low for low, _ in rates.values()), max(h for _, h in rates.values())
    if not resampled and highest > 1.01 * lowest:
        ranges = ", ".join(f"{label} {low:g} to {high:g}" for label, (low, high) in rates.items())
        told.append(
            f"frame rates differ ({ranges} fps), so clips of as many frames last differently; "
            "--fps brings them to one rate"
        )
    return told

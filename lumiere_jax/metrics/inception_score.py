"""Inception Score: exp of the mean KL(p(y|x) ‖ p(y)) (1606.03498), in float64."""

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

from lumiere_jax.runtime.errors import UserError


def inception_score(
    logits: Float[np.ndarray, "videos classes"], splits: int = 1, epsilon: float = 0.0
) -> tuple[float, float]:
    """Inception Score of a set of videos: mean and (population) standard deviation over the splits.

    Splitting lowers the score, because the mean over fewer videos is nearer to each: scores with
    different `splits` or different numbers of videos do not compare.

    Args:
      logits: before the softmax, in an order without pattern if there are splits.
      splits: parts of nearly equal size that are scored by themselves.
      epsilon: added to probabilities before their logarithm: 1e-20 in TGANv2, 1e-7 in TGAN; 0 works
        in logarithms all along and cannot underflow.

    Raises:
      UserError: if there are fewer videos than splits, or a logit is not finite.
    """
    logits = np.asarray(logits, np.float64)
    if not 1 <= splits <= len(logits):
        raise UserError(
            f"splits={splits} must be between 1 and the number of videos, {len(logits)}."
        )
    if not np.isfinite(logits).all():
        raise UserError("a logit is not finite: the network or its input is broken.")
    scores = [_score(part, epsilon) for part in np.array_split(logits, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray, epsilon: float) -> float:
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    log_mean = logsumexp(log_p, axis=0) - np.log(len(p))
    if epsilon:
        log_p, log_mean = np.log(p + epsilon), np.log(p.mean(axis=0) + epsilon)
    return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))

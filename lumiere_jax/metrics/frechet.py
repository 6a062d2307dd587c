"""Fréchet distance and kernel distance between two sets of features, in float64.

FVD (1812.01717) is the Fréchet distance of I3D's logits, as
`tfgan.eval.frechet_classifier_distance_from_activations` computes it: unbiased covariances, and the
trace of the root by two symmetric roots from singular value decompositions.
"""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

ROOT_EPSILON = 1e-10  # singular values below it are left as they are, as in the original
_FRACTION_BITS = 20
_LARGEST = 2.0 ** (30 - _FRACTION_BITS)
_LIMB = 2**16
_ROWS = 1024
_CHUNK = 2**20  # features whose sum of products of limbs float64 holds exactly


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, sum and outer products of features, merged without rounding.

    A feature is rounded once, to a multiple of 2^-20 (logits in float32 carry an error as large),
    and from then on all is integers: the same videos give the same moments, to the last bit, in
    whatever order, batches and processes they were seen. Memory does not grow with their number.
    With every feature times 2^20 written as high · 2^16 + low, `products` are the sums of the outer
    products high · high, high · low + low · high and low · low.
    """

    count: int  # features seen, at most 2^31
    total: Int64[np.ndarray, " dim"]  # their sum times 2^20
    products: Int64[np.ndarray, "3 dim dim"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n dim"]) -> "Moments":
        """Moments of features; a `UserError` if one is not finite, or is 1024 or more."""
        features = np.asarray(features, np.float64)
        if not (np.abs(features) < _LARGEST).all():
            raise UserError(
                f"features must be finite and smaller than {_LARGEST:.0f}; the largest is "
                f"{np.abs(features).max()}."
            )
        whole = np.rint(features * 2.0**_FRACTION_BITS).astype(np.int64)
        moments = cls.none(whole.shape[1])
        for start in range(0, len(whole), _CHUNK):
            part = whole[start : start + _CHUNK]
            moments += cls(len(part), part.sum(axis=0), _outer_products(part))
        return moments

    @classmethod
    def none(cls, dim: int) -> "Moments":
        """Moments of no features of size `dim`."""
        return cls(0, np.zeros(dim, np.int64), np.zeros((3, dim, dim), np.int64))

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets together."""
        return Moments(
            self.count + other.count, self.total + other.total, self.products + other.products
        )

    @property
    def mean(self) -> Float64[np.ndarray, " dim"]:
        """Mean of the features, correctly rounded."""
        return _rounded(self.total.astype(object), self.count << _FRACTION_BITS)

    def covariance(self, ddof: int = 1) -> Float64[np.ndarray, "dim dim"]:
        """Covariance, correctly rounded; a `UserError` if there are fewer than two features.

        A `ddof` of 1 divides by N - 1 (unbiased, as the original), 0 by N.
        """
        if self.count < 2:
            raise UserError(f"a covariance needs 2 videos or more; there are {self.count}.")
        high, mixed, low = self.products.astype(object)
        products = high * _LIMB**2 + mixed * _LIMB + low
        total = self.total.astype(object)
        centred = self.count * products - np.multiply.outer(total, total)
        return _rounded(centred, self.count * (self.count - ddof) << 2 * _FRACTION_BITS)

    def save(self, path: str | Path, **notes: str) -> None:
        """Writes an `.npz` file, with `notes` on where the features came from."""
        arrays: dict[str, Any] = {
            "count": self.count, "total": self.total, "products": self.products,
            **{f"note_{name}": note for name, note in notes.items()},
        }  # fmt: skip
        with written(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> tuple["Moments", dict[str, str]]:
        """Reads what `save` wrote, moments and notes; a `UserError` if that is not there."""
        try:
            with (
                Path(path).expanduser().open("rb") as opened,
                np.load(opened, allow_pickle=False) as file,
            ):
                notes = {k.removeprefix("note_"): str(file[k]) for k in file if "note_" in k}
                return cls(int(file["count"]), file["total"], file["products"]), notes
        except (OSError, TypeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"statistics {path} cannot be read: {error}.") from error


def _rounded(numerators: np.ndarray, denominator: int) -> np.ndarray:
    """Exact quotients of Python integers, each rounded once to float64."""
    flat = [int(numerator) / denominator for numerator in numerators.ravel()]
    return np.array(flat).reshape(numerators.shape)


def _outer_products(whole: np.ndarray) -> np.ndarray:
    """Sums of the outer products of limbs, exact in float64: below 2^20 · 2^32."""
    high, low = (part.astype(np.float64) for part in np.divmod(whole, _LIMB))
    mixed = high.T @ low
    return np.stack([high.T @ high, mixed + mixed.T, low.T @ low]).astype(np.int64)


def frechet_distance(first: Moments, second: Moments, ddof: int = 1) -> float:
    """Squared Fréchet distance of two Gaussians with these moments.

    |m1 - m2|² + tr(S1 + S2) - 2 tr √(√S1 S2 √S1), which is symmetric; `ddof` and errors as of
    `Moments.covariance`.
    """
    return distance_of_gaussians(
        first.mean, first.covariance(ddof), second.mean, second.covariance(ddof)
    )


def distance_of_gaussians(
    mean_1: Float64[np.ndarray, " dim"],
    covariance_1: Float64[np.ndarray, "dim dim"],
    mean_2: Float64[np.ndarray, " dim"],
    covariance_2: Float64[np.ndarray, "dim dim"],
) -> float:
    """Squared Fréchet distance of two Gaussians, see `frechet_distance`."""
    difference = mean_1 - mean_2
    root = symmetric_root(covariance_1)
    cross = np.trace(symmetric_root(root @ covariance_2 @ root))
    trace = np.trace(covariance_1) + np.trace(covariance_2)
    return float(difference @ difference + trace - 2 * cross)


def symmetric_root(
    matrix: Float64[np.ndarray, "dim dim"], epsilon: float = ROOT_EPSILON
) -> Float64[np.ndarray, "dim dim"]:
    """Root of a symmetric positive semi-definite matrix by its singular value decomposition.

    Singular values below `epsilon` are not rooted.
    """
    left, singular, right = np.linalg.svd(matrix)
    rooted = np.where(singular < epsilon, singular, np.sqrt(singular))
    return (left * rooted) @ right


class KernelDistance(NamedTuple):
    """A kernel distance and its standard error, which is None for fewer than three features."""

    value: float
    error: float | None


def kernel_distance(
    first: Float[np.ndarray, "n dim"], second: Float[np.ndarray, "m dim"], degree: int = 3
) -> KernelDistance:
    """KVD: the unbiased squared maximum mean discrepancy of a polynomial kernel (1801.01401).

    k(x, y) = (x · y / dim + 1)^degree of two sets of features. Where they are alike it may be below
    zero: its mean over many draws of equal distributions is zero. The error is the jackknife's,
    from leaving out each feature of each set in turn. A set of fewer than two features is a
    `UserError`.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(
            f"a kernel distance needs 2 videos or more; there are {len(first)} and {len(second)}."
        )
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)

    def sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of the kernel of each x with all y, some rows at a time to save memory."""
        rows = range(0, len(x), _ROWS)
        kernels = ((x[row : row + _ROWS] @ y.T / x.shape[1] + 1) ** degree for row in rows)
        return np.concatenate([kernel.sum(axis=1) for kernel in kernels])

    def within(x: np.ndarray) -> np.ndarray:
        """Sums of the kernel of each x with all others."""
        return sums(x, x) - ((x**2).sum(axis=1) / x.shape[1] + 1) ** degree

    own = [within(first), within(second)]
    across = [sums(first, second), sums(second, first)]
    counts = [len(first), len(second)]
    means = [total.sum() / (n * (n - 1)) for total, n in zip(own, counts, strict=True)]
    between = across[0].sum() / (counts[0] * counts[1])
    value, variance = sum(means) - 2 * between, 0.0
    if min(counts) < 3:
        return KernelDistance(float(value), None)
    for i, n in enumerate(counts):
        left_own = (own[i].sum() - 2 * own[i]) / ((n - 1) * (n - 2))
        left_between = (across[i].sum() - across[i]) / ((n - 1) * counts[1 - i])
        left = left_own + means[1 - i] - 2 * left_between
        variance += (n - 1) / n * ((left - left.mean()) ** 2).sum()
    return KernelDistance(float(value), float(variance**0.5))

"""Which stages of a bundle make up a cascade."""

from collections.abc import Mapping
from pathlib import Path

from lumiere_jax.checkpoints import bundle
from lumiere_jax.checkpoints.manifest import StageEntry
from lumiere_jax.runtime.errors import UserError

BASES = ("stunet", "stunet_conditional", "t2i")
"""Kinds of stages that a cascade begins with, the preferred ones first."""


def choose(
    folder: str | Path, base: str | None = None, *, distilled: bool = False
) -> tuple[Path, list[Path]]:
    """The base of a bundle, and its super-resolution stages in the order of the manifest.

    Args:
      folder: the bundle.
      base: name or kind of the base; None for the first of `BASES` that there is.
      distilled: take the stages of few steps (`lumiere_jax.training.distill`) where there are such.

    Raises:
      UserError: if the bundle has no such base, or several.
    """
    folder, entries = Path(folder).expanduser(), bundle.entries(folder)
    kinds = {name: entry["config"]["stage"] for name, entry in entries.items()}
    bases = {name: kind for name, kind in kinds.items() if kind in BASES}
    if base in bases and not distilled:
        names = [base]
    else:
        wanted = base or next((kind for kind in BASES if kind in bases.values()), None)
        names = _preferred([n for n, kind in bases.items() if kind == wanted], entries, distilled)
    if not names:
        raise UserError(
            f"{folder} has no base stage{f' {base!r}' if base else ''}; "
            f"{'it has ' + ', '.join(bases) if bases else 'give another bundle'}."
        )
    if len(names) > 1:
        raise UserError(f"{folder} has {len(names)} bases: {', '.join(names)}; name one of them.")
    (name,) = names
    refining = "t2i_ssr" if kinds[name] == "t2i" else "ssr"
    following = [n for n, kind in kinds.items() if kind == refining]
    return folder / name, [folder / n for n in _preferred(following, entries, distilled)]


def _preferred(names: list[str], entries: Mapping[str, StageEntry], distilled: bool) -> list[str]:
    """Those that are distilled, or are not; all of them if that leaves none."""
    chosen = [n for n in names if bool(entries[n]["config"].get("distillation")) == distilled]
    return chosen or names

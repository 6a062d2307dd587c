"""From the workdirs of a cascade to a bundle."""

from collections.abc import Sequence
from pathlib import Path

from lumiere_jax import bundle, checkpoint
from lumiere_jax.errors import UserError
from lumiere_jax.stage import STAGES


def export(workdirs: Sequence[str], output: str | Path, dtype: str = "bfloat16") -> str:
    """Writes a bundle of the newest checkpoint of each run.

    A stage leaves out what it shares with the one that it was initialised from, if that is among
    them.

    Args:
      workdirs: each "WORKDIR" or "NAME=WORKDIR"; without a name, that of its stage.
      output: folder of the bundle.
      dtype: of the weights, "bfloat16" or "float32".

    Returns:
      A table of what was written.

    Raises:
      UserError: if a workdir has no checkpoint, two have one name, or `output` is no bundle.
    """
    stages, shares = {}, {}
    for given in workdirs:
        name, _, workdir = given.rpartition("=")
        config, params, step = checkpoint.load(workdir)
        name = name or config.stage
        if name in stages:
            raise UserError(f"two stages are called {name!r}; name one: --stage=NAME=WORKDIR.")
        if not name.isidentifier():
            raise UserError(f"--stage={given}: {name!r} is no name; use letters and digits.")
        config.init_from = ""  # a folder of this machine
        stages[name] = (config.to_dict(), params, step)
        if STAGES[config.stage]:
            shares[name] = STAGES[config.stage]
    bundle.write(stages, output, shares, dtype)
    return describe(output)


def describe(output: str | Path) -> str:
    """A table of the stages of a bundle."""
    lines = [f"{'stage':<20} {'step':>8} {'parameters':>12} {'file, MB':>9}  leaves out"]
    for name, entry in bundle.entries(output).items():
        size = f"{entry['bytes'] / 1e6:9.1f}"
        shared = f"what {entry['shares']} has" if entry["shares"] else "nothing"
        lines.append(f"{name:<20} {entry['step']:>8} {entry['parameters']:>12,} {size}  {shared}")
    return "\n".join(lines)

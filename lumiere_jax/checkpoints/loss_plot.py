"""A picture of a run's loss."""

from pathlib import Path

from etils import epath

from lumiere_jax.runtime import metric_writer
from lumiere_jax.runtime.files import written

FILE = "loss.png"


def write(workdir: str | Path, title: str) -> epath.Path | None:
    """Draws training and held-out loss into `WORKDIR/loss.png`; None if there are no metrics."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = list(metric_writer.read(workdir))
    train = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    held_out = [(line["step"], line["eval_loss"]) for line in lines if line.get("eval_loss")]
    if not train:
        return None
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(*zip(*train, strict=True), label="training", linewidth=1.2)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held-out clips, EMA", markersize=3)
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    axes.grid(alpha=0.3, which="both")
    path = epath.Path(workdir).expanduser() / FILE
    with written(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    return path

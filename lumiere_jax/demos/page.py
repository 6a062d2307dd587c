"""The page that the demo ends with: prompts, videos, scores and loss curves."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from lumiere_jax.cascade.stage import CASCADE
from lumiere_jax.runtime.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem;
       color: #1c1c1c; background: #fafafa; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
figure { margin: 0; background: #fff; border: 1px solid #ddd; border-radius: 8px; padding: .6rem; }
figure video, figure img { width: 100%; border-radius: 4px; image-rendering: pixelated; }
figure.plot img { image-rendering: auto; }
figcaption { font-size: .85rem; margin-top: .4rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr + tr { border-top: 1px solid #ddd; }
"""


def write_trained(output: str | Path, scores: dict[str, dict[str, float]]) -> Path:
    """Writes `OUTPUT/index.html` of a cascade that was trained here, and returns its path.

    In the folder are `prompts.json`, `videos/` and `runs/`; the scores are the oracle's, by row and
    attribute.
    """
    output = Path(output).expanduser()
    prompts = json.loads((output / "prompts.json").read_text())
    plots = "\n".join(
        f'<figure class="plot"><img src="runs/{stage}/loss.png" alt="loss of stage {stage}">'
        f"<figcaption>Loss of stage {stage}</figcaption></figure>"
        for stage in CASCADE
        if (output / "runs" / stage / "loss.png").is_file()
    )
    body = f"""<p>Every prompt below was held out of training: its combination of shape, colour,
direction and background was never seen. The base network makes 8 frames of 16×16 in one pass; the
super-resolution network refines them to 64×64 with temporal MultiDiffusion.</p>
<div class="grid">{_clips(prompts)}</div>
<h2>Does it show what the caption says?</h2>
<p>Share of base clips that the oracle judges right.</p>
{_table(scores)}
<h2>Training</h2>
<div class="grid" style="grid-template-columns: repeat(auto-fill, minmax(420px, 1fr))">{plots}</div>
"""
    return _write(output, "The tiny cascade, trained on this machine", body)


def write_shown(
    output: str | Path, prompts: Sequence[str], size: Sequence[int], fps: float, vocabulary: str
) -> Path:
    """Writes `OUTPUT/index.html` of what shipped weights made, and returns its path.

    `prompts` are those of `videos/` in their order, `size` frames, height and width of a video, and
    `vocabulary` is a sentence on what else can be asked for.
    """
    frames, height, width = size
    body = f"""<p>Made on this machine by the weights in <code>weights/small</code>: {frames} frames
of {height}×{width} at {fps:g} fps, all frames in one pass of the base network, then
super-resolution with temporal MultiDiffusion.</p>
<div class="grid">{_clips(prompts)}</div>
<h2>Your own prompts</h2>
<pre>make demo PROMPT="{html.escape(prompts[0])}" SEED=1</pre>
<p>The weights know {html.escape(vocabulary)}</p>
<p>What they were trained on and how they score: <code>weights/small/README.md</code>. To
animate a picture, inpaint a region or change the style: <code>docs/editing.md</code>. To
train from nothing on this machine: <code>make demo-train</code>.</p>
"""
    return _write(Path(output).expanduser(), "Videos by the shipped weights", body)


def _write(output: Path, title: str, body: str) -> Path:
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lumiere_jax: {html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
{body}</body></html>
"""
    write_text(output / "index.html", page)
    return output / "index.html"


def _clips(prompts: Sequence[str]) -> str:
    return "\n".join(
        f'<figure><video src="videos/{i:02d}.mp4" autoplay loop muted playsinline></video>'
        f'<figcaption>{html.escape(prompt)} <a href="videos/{i:02d}.gif">GIF</a></figcaption>'
        "</figure>"
        for i, prompt in enumerate(prompts)
    )


def _table(scores: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(scores.values())))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in columns)
    rows = "".join(
        f"<tr><td>{html.escape(row)}</td>"
        + "".join(f"<td>{100 * values[name]:.0f}%</td>" for name in columns)
        + "</tr>"
        for row, values in scores.items()
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"

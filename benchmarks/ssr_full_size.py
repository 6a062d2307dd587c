"""Super-resolution at the paper's output shape, 80×1024×1024, on a CPU in bounded memory.

Refines a true `moving_shapes` clip of 128×128 with a narrow network that was trained by the
ordinary commands, see `benchmarks/README.md`, and measures time, peak memory and the seams
between MultiDiffusion windows.

    python benchmarks/ssr_full_size.py --ssr=runs/ssr_narrow --output=benchmarks/results
"""

import json
import resource
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from lumiere_jax.cascade.denoising import Inputs
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.data.moving_shapes import MovingShapes
from lumiere_jax.data.video_io import write_contact_sheet, write_mp4
from lumiere_jax.diffusion.multidiffusion import frame_differences, windows
from lumiere_jax.inference.sampling import StageSampler, sample_keys
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.progress import Progress

_SSR = flags.DEFINE_string("ssr", None, "Workdir of a super-resolution stage.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results", "Folder of the results.")
_FRAMES = flags.DEFINE_integer("frames", 80, "Frames of the clip.")
_SIZE = flags.DEFINE_integer("size", 1024, "Height and width of the result.")
_STEPS = flags.DEFINE_integer("steps", 2, "Denoising steps.")
_OVERLAP = flags.DEFINE_integer("overlap", 2, "Frames that neighbouring windows share.")
_FACTOR = flags.DEFINE_integer("factor", 8, "How much larger the result is.")
_WINDOW = flags.DEFINE_integer("window", 8, "Frames of a window.")
flags.mark_flags_as_required(["ssr"])


def seam_ratio(video: np.ndarray, window: int, overlap: int) -> dict[str, float]:
    """How much the error of neighbouring frames rises where windows change.

    Args:
      video: `[1, time, height, width, 3]`: the refined clip minus the true one.
      window: frames of a window.
      overlap: frames that windows share.

    Returns:
      Mean squared neighbour-frame difference at the steps where the set of windows that hold a
      frame changes, elsewhere, and the ratio of the two.
    """
    frames = video.shape[1]
    starts = windows(frames, window, overlap)
    members = [{i for i, s in enumerate(starts) if s <= t < s + window} for t in range(frames)]
    border = np.array([members[t] != members[t + 1] for t in range(frames - 1)])
    difference = np.asarray(frame_differences(video))[0]
    at, elsewhere = difference[border].mean(), difference[~border].mean()
    return {"border": float(at), "elsewhere": float(elsewhere), "ratio": float(at / elsewhere)}


def main(argv: list[str]) -> None:
    """Runs once and writes the figures and a contact sheet."""
    del argv
    config, params, step = checkpoint.load(_SSR.value)
    config.ssr.factor, config.ssr.overlap = _FACTOR.value, _OVERLAP.value
    config.ssr.window, config.ssr.chunk = _WINDOW.value, 1
    stage = Stage.from_config(config)
    low_size = _SIZE.value // _FACTOR.value
    source = MovingShapes(num_frames=_FRAMES.value, resolution=low_size, split="test")
    true = MovingShapes(num_frames=_FRAMES.value, resolution=_SIZE.value, split="test")
    low, caption = source.example(0)
    options = SamplingOptions.from_config(config, num_steps=_STEPS.value)
    progress = Progress("super-resolution", _STEPS.value, "steps")
    progress.announce("compiling, this can take minutes")
    inputs = Inputs(*stage.text_encoder([caption]), sample_keys([0], 1), video=low[None])
    begin = time.monotonic()
    video = np.asarray(StageSampler(stage, options)(params, inputs, on_step=progress.advance))
    seconds = time.monotonic() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {
        "shape": list(video.shape[1:]),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "trained_steps": step,
        "denoising_steps": _STEPS.value,
        "windows": len(windows(_FRAMES.value, _WINDOW.value, _OVERLAP.value)),
        "overlap": _OVERLAP.value,
        "seconds_with_compilation": round(seconds, 1),
        "peak_memory_gib_of_the_run": round(peak, 2),
    }
    reference = true.example(0)[0]
    error = video - reference[None]
    figures["mean_absolute_error"] = float(np.abs(error).mean())
    figures["seams"] = seam_ratio(error, _WINDOW.value, _OVERLAP.value)
    output = Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    name = f"ssr_{_FRAMES.value}x{_SIZE.value}_overlap{_OVERLAP.value}"
    (output / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    write_contact_sheet(output / f"{name}.png", [video[0], reference], [caption, "true"])
    write_mp4(Path(_SSR.value) / f"{name}.mp4", video[0], 16)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    errors.run(main)

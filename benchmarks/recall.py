"""How well a base model that was trained on a few clips recalls each from its caption.

python benchmarks/recall.py --base=runs/recall --output=recall.png
"""

import numpy as np
from absl import flags

from lumiere_jax.data.sources import create_source
from lumiere_jax.data.video_io import write_contact_sheet
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime import errors

_BASE = flags.DEFINE_string("base", None, "Workdir of the base stage.")
_OUTPUT = flags.DEFINE_string("output", "recall.png", "Contact sheet, true and recalled.")
flags.mark_flags_as_required(["base"])


def main(argv: list[str]) -> None:
    """Samples every caption of the training data and prints the PSNR against its clip."""
    del argv
    pipeline = LumierePipeline.from_checkpoints(_BASE.value)
    source = create_source(pipeline.base[0].config.data, "train")
    clips, captions = zip(*(source.example(i) for i in range(len(source))), strict=True)
    videos = pipeline(captions, guidance_scale=1.0)
    for clip, video, caption in zip(clips, videos, captions, strict=True):
        psnr = 10 * np.log10(4.0 / np.mean((video - clip) ** 2))  # the range is 2
        print(f"{psnr:.2f} dB  {caption}")
    rows = [row for pair in zip(clips, videos, strict=True) for row in pair]
    labels = [label for caption in captions for label in (f"true: {caption}", "recalled")]
    write_contact_sheet(_OUTPUT.value, rows, labels)


if __name__ == "__main__":
    errors.run(main)

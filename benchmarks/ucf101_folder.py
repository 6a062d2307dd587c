"""Makes a folder of six classes of UCF101 that `prepare_data` takes.

    python benchmarks/ucf101_folder.py --ucf101=UCF-101 --output=VIDEOS

UCF-101 holds the videos under their own names (`v_Archery_g01_c01.avi`), in folders of classes or
not. They are copied to VIDEOS/train/CLASS and, those of groups 1 to 7, as in the first official
list, to VIDEOS/test/CLASS; captions.csv has three captions for each.
"""

import csv
import re
import shutil
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.progress import Progress

CAPTIONS = {
    "Archery": ("a person shooting with a bow", "archery", "an archer draws a bow and shoots"),
    "BasketballDunk": (
        "dunking basketball in a basketball match", "a player dunks the basketball",
        "basketball dunk",
    ),
    "HorseRace": ("group of people racing horse", "horse race", "horses run on a race track"),
    "PlayingPiano": (
        "a musician playing the piano", "playing piano", "hands play the keys of a piano",
    ),
    "PlayingViolin": (
        "a musician playing the violin", "playing violin", "a person plays the violin with a bow",
    ),
    "Surfing": ("surfing", "a surfer rides a wave", "a person on a surfboard in the sea"),
}  # fmt: skip
HELD_OUT_GROUPS = range(1, 8)  # of testlist01.txt
_NAME = re.compile(r"v_([A-Za-z]+)_g(\d+)_c\d+\.\w+")


def place(name: str) -> Path | None:
    """Where a video belongs in the folder; None for other files, and for other classes."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in CAPTIONS:
        return None
    return Path("test" if int(match[2]) in HELD_OUT_GROUPS else "train", match[1], name)


def arrange(videos: Path, output: Path) -> int:
    """Copies the videos, writes captions.csv, and returns how many videos there are.

    Raises:
      UserError: if there is none.
    """
    files = [path for path in sorted(videos.rglob("*")) if path.is_file()]
    places = {to: path for path in files if (to := place(path.name))}
    if not places:
        raise UserError(
            f"--ucf101={videos} holds no video of {', '.join(CAPTIONS)}; give the folder of "
            "UCF101's files, named as v_Archery_g01_c01.avi."
        )
    progress = Progress("copying", len(places), "videos")
    for to, path in places.items():
        (output / to).parent.mkdir(parents=True, exist_ok=True)
        with written(output / to) as temporary:
            shutil.copyfile(path, temporary)
        progress.advance()
    with written(output / "captions.csv") as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "caption"])
        rows.writerows((to, text) for to in places for text in CAPTIONS[to.parts[1]])
    return len(places)


def main(argv: list[str]) -> None:
    """Makes the folder that the flags ask for."""
    del argv
    given = flags.FLAGS
    print(f"{arrange(Path(given.ucf101), Path(given.output))} videos in {given.output}")


if __name__ == "__main__":
    flags.DEFINE_string("ucf101", None, "Folder of UCF101's videos.", required=True)
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    errors.run(main)

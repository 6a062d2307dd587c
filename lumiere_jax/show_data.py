"""Shows what training sees: `python -m lumiere_jax.show_data --config=FILE --output=FOLDER`.

Writes clips of the config's data set as `0000.mp4` and so on, at the rate and size that they are
trained at, small ones enlarged; the first frame of each as `0000.png`; `captions.csv`, which makes
the folder one for `video_folder` and `image_folder`; `contact_sheet.png`; and `data_report.txt`,
which names the files that are left out. The clips are from all parts of the data set.
"""

import csv
from pathlib import Path

from absl import flags

from lumiere_jax.runtime import config_file, errors
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.path_flags import define_path

_CONFIG = config_file.define_flag("File of configs/, with a variant after a colon.")
_OUTPUT = define_path("output", None, "Folder to write to.", required=True)
_COUNT = flags.DEFINE_integer("count", 8, "Clips, from all parts of the split.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "test"], "Split of the data set.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Writes the clips."""
    del argv
    from lumiere_jax.data.sources import create_source, say_report, spread
    from lumiere_jax.data.video_io import write_contact_sheet, write_image
    from lumiere_jax.inference.outputs import view_scale, write_viewable
    from lumiere_jax.runtime.files import written

    data, folder = _CONFIG.value.data, Path(_OUTPUT.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={folder} cannot be used as a folder ({error}).") from error
    source = create_source(data, _SPLIT.value)
    say_report(source, folder)
    videos, rows = [], []
    for index, place in enumerate(spread(source, _COUNT.value)):
        video, caption = source.example(place)
        names = [f"{index:04d}.mp4", f"{index:04d}.png"]
        write_viewable(folder / names[0], video, data.fps, caption)
        write_image(folder / names[1], video[0], upscale=view_scale(video.shape[1]))
        rows += [(name, caption) for name in names]
        videos.append(video)
        print(f"{folder / names[0]}: {caption}")
    with written(folder / "captions.csv") as path, path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    write_contact_sheet(folder / "contact_sheet.png", videos, [caption for _, caption in rows[::2]])


if __name__ == "__main__":
    errors.run(main)

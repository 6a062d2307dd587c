"""The plan of a preparation: which videos go into which shard, and by which settings.

It is written once into the folder of the output, and decides every byte of it. Whoever makes a
shard, now or after a kill, on this machine or on another, reads its few videos from there.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from lumiere_jax.data.prepared_format import FORMAT_VERSION, Settings, Shard
from lumiere_jax.data.source import SPLITS
from lumiere_jax.preparation.manifest import Source, Video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text, written

FOLDER = "plan"
_FILE = "plan.json"
_OF_SOURCE = ("root", "left_out", "columns", "splits")  # what a plan says of its source
_FEWEST_VIDEOS, _MOST_VIDEOS, _SHARDS = 8, 256, 1000  # of a shard where its size is chosen


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made."""

    output: epath.Path  # folder of the output
    root: str  # folder that relative paths of videos start from
    settings: Settings  # of the records
    digest: str  # SHA-256 of the list of videos
    shard_size: int  # videos of a shard; the last one of a split may have fewer
    num_videos: dict[str, int]  # split -> how many
    offsets: dict[str, list[int]]  # split -> first byte of each shard in its list, and the end
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # see `Source`
    columns: str = ""  # see `Source`
    splits: str = ""  # see `Source`

    def shards(self) -> Iterator[Shard]:
        """All shards, in order."""
        for split in SPLITS:
            count = len(self.offsets[split]) - 1
            yield from (Shard(split, number, count) for number in range(count))

    def size(self, shard: Shard) -> int:
        """How many videos a shard has."""
        return min(self.shard_size, self.num_videos[shard.split] - shard.number * self.shard_size)

    def videos(self, shard: Shard) -> list[Video]:
        """The videos of a shard."""
        begin, end = self.offsets[shard.split][shard.number : shard.number + 2]
        with _list_path(self.output, shard.split).open("rb") as file:
            file.seek(begin)
            lines = file.read(end - begin).decode().splitlines()
        return [Video.from_line(line) for line in lines]

    @classmethod
    def load(cls, output: epath.PathLike) -> "Plan":
        """Reads the plan of an output; a `UserError` if there is none of this version."""
        output = epath.Path(output)
        path = output / FOLDER / _FILE
        try:
            values = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path} cannot be read ({error}): choose another --output") from error
        if values.pop("format") != FORMAT_VERSION:
            raise UserError(
                f"{output} was made by another version of this program: choose another --output"
            )
        settings = Settings.from_json(values.pop("settings"))
        return cls(output=output, settings=settings, **values)


def make_plan(output: epath.PathLike, source: Source, settings: Settings) -> Plan:
    """Writes the plan of a new output, or finds that of one that was begun.

    A `UserError` if it was begun with other videos or settings, or holds something else.
    """
    output = epath.Path(output)
    if not (output / FOLDER / _FILE).exists():
        if output.exists() and any(path.name != FOLDER for path in output.iterdir()):
            raise UserError(f"{output} holds other files: choose another --output")
        (output / FOLDER).mkdir(parents=True, exist_ok=True)
        return _write_plan(output, source, settings)
    plan = Plan.load(output)
    if difference := next(_differences(plan.settings.to_json(), settings.to_json()), None):
        name, old, new = difference
        raise UserError(
            f"{output} was begun with {name} = {old}, not {new}: choose another --output, or the "
            "settings of before"
        )
    if plan.digest != _digest(source):
        raise UserError(
            f"{output} was begun with other videos, captions or splits than {source.root} has now: "
            "choose another --output"
        )
    facts = {name: getattr(source, name) for name in _OF_SOURCE}
    return dataclasses.replace(plan, **facts)


def _write_plan(output: epath.Path, source: Source, settings: Settings) -> Plan:
    """Writes the list of the videos of each split, and then the plan."""
    by_split = {split: [v for v in source.videos if v.split == split] for split in SPLITS}
    # About a thousand shards, in bounds that keep them handy.
    chosen = min(max(len(source.videos) // _SHARDS, _FEWEST_VIDEOS), _MOST_VIDEOS)
    size = settings.videos_per_shard or chosen
    offsets: dict[str, list[int]] = {}
    for split, videos in by_split.items():
        position, offsets[split] = 0, [0]
        with written(_list_path(output, split)) as path, path.open("wb") as file:
            for first in range(0, len(videos), size):
                text = "".join(video.to_line() for video in videos[first : first + size])
                position += file.write(text.encode())
                offsets[split].append(position)
    values: dict[str, Any] = {
        "digest": _digest(source),
        "shard_size": size,
        "num_videos": {split: len(videos) for split, videos in by_split.items()},
        "offsets": offsets,
        **{name: getattr(source, name) for name in _OF_SOURCE},
    }
    head = {"format": FORMAT_VERSION, "settings": settings.to_json()}
    write_text(output / FOLDER / _FILE, json.dumps(head | values) + "\n")
    return Plan(output=output, settings=settings, **values)


def _list_path(output: epath.Path, split: str) -> epath.Path:
    return output / FOLDER / f"videos-{split}.jsonl"


def _digest(source: Source) -> str:
    """SHA-256 of the list of videos."""
    digest = hashlib.sha256()
    for video in source.videos:
        digest.update(video.to_line().encode())
    return digest.hexdigest()


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Names and values of the settings that differ."""
    for name in old | new:
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from ((f"{name}.{part}", *values) for part, *values in _differences(before, now))
        elif before != now or name not in old:
            yield name, before, now

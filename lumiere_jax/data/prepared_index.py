"""The index of prepared clips, which training reads."""

import dataclasses
import json

from etils import epath

from lumiere_jax.data.prepared_records import RecordFormat
from lumiere_jax.data.prepared_settings import FORMAT_VERSION, Settings
from lumiere_jax.runtime.errors import UserError

FILE_NAME = "index.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What a finished output holds.

    Attributes:
      settings: that it was made by.
      shard_lengths: split -> number of clips in each of its shards.
      num_bytes: split -> size of its clips in bytes, before compression.
      text_shape: (L, D) of stored embeddings with their padding; None where there are none.
      fingerprint: SHA-256 of the settings of the clips and of all records in order. It depends
        neither on the machine nor on the number of workers, kills or engines.
    """

    settings: Settings
    shard_lengths: dict[str, list[int]]
    num_bytes: dict[str, int]
    text_shape: tuple[int, int] | None
    fingerprint: str

    def num_clips(self, split: str) -> int:
        """Clips of a split."""
        return sum(self.shard_lengths[split])

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, 3) of a clip."""
        return (self.settings.num_frames, *self.settings.resolution, 3)

    def record_format(self) -> RecordFormat:
        """How the records are stored."""
        return RecordFormat(self.clip_shape, self.text_shape and self.text_shape[1])

    @classmethod
    def load(cls, output: epath.PathLike) -> "Index":
        """Reads the index of a finished output.

        Raises:
          UserError: the folder holds none, or one of another version.
        """
        path = epath.Path(output) / FILE_NAME
        try:
            values = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(
                f"{output} holds no prepared data ({path.name}: {error}); make it, or end what was "
                "begun, with python -m lumiere_jax.prepare_data"
            ) from error
        if values.pop("format", None) != FORMAT_VERSION:
            raise UserError(f"{path} is of another version: prepare the data again")
        return cls(**values | {"settings": Settings.from_json(values["settings"])})

"""How coherent a clip with one object is: its path, its identity, its frames beside each other.

Clips are float `[time, height, width, 3]` in [-1, 1]; lengths are in frame widths, colours RGB in
[0, 1]. Nothing here looks at the model that made a clip.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lumiere_jax.data.scene import DIRECTIONS, PATH_LENGTH
from lumiere_jax.metrics.scene_vision import look

_LEAST_CONTRAST = 0.15  # distance of an object's colour from the ground's; the renderer's is 0.5
_FLOOR = 0.25  # less of the object's colour is noise
_CORE = 0.8  # pixels with this share of a frame's most are the object's colour


@dataclasses.dataclass(frozen=True)
class Track:
    """One object over a clip.

    Attributes:
      seen: `[time]`, whether a frame shows an object; the rest is NaN where it does not.
      centres: `[time, 2]`, (x, y).
      areas: `[time]`, share of the frame; 0 where no object is seen.
      colours: `[time, 3]`.
    """

    seen: np.ndarray
    centres: np.ndarray
    areas: np.ndarray
    colours: np.ndarray


def track(video: np.ndarray) -> Track:
    """Follows what differs from the ground, the median colour of each frame.

    How much of a pixel the object covers is its distance from the ground, over the distance that
    the most distant pixel of the median frame has.
    """
    frames = np.clip((np.asarray(video, np.float64) + 1) / 2, 0, 1)
    distance = np.linalg.norm(frames - np.median(frames, axis=(1, 2), keepdims=True), axis=-1)
    contrast = np.median(distance.max(axis=(1, 2)))
    cover = np.minimum(distance / max(contrast, _LEAST_CONTRAST), 1)
    cover[cover < _FLOOR] = 0
    most = cover.max(axis=(1, 2))
    seen = most > 0 if contrast >= _LEAST_CONTRAST else np.zeros(len(frames), bool)
    total = np.where(seen, cover.sum(axis=(1, 2)), np.nan)
    grid = (np.indices(cover.shape[1:])[::-1] + 0.5) / cover.shape[1]
    centres = np.einsum("thw,chw->tc", cover, grid) / total[:, None]
    core = cover >= np.where(seen, _CORE * most, np.inf)[:, None, None]
    size = np.where(seen, core.sum(axis=(1, 2)), np.nan)
    colours = np.einsum("thw,thwc->tc", core, frames) / size[:, None]
    return Track(seen, centres, np.nan_to_num(total) / cover[0].size, colours)


def path_error(found: Track, direction: str) -> float:
    """Distance of the centres from the nearest path that a caption allows, root mean square.

    Such a path is straight, walked at constant speed in the caption's direction, and 45 to 55% of
    the frame's width long over the whole clip; it may begin anywhere. NaN where fewer than two
    frames show an object.

    Args:
      found: of the clip.
      direction: a key of `scene.DIRECTIONS`.
    """
    moments, centres = _deviations(found)
    if len(moments) < 2:
        return float("nan")
    unit = np.asarray(DIRECTIONS[direction])
    length = np.clip(moments @ (centres @ unit) / (moments @ moments), *PATH_LENGTH)
    return _root_mean_square(centres - moments[:, None] * length * unit)


def bend(found: Track) -> float:
    """Distance of the centres from the nearest straight path at constant speed, whatever it says.

    Root mean square; NaN as in `path_error`.
    """
    moments, centres = _deviations(found)
    if len(moments) < 2:
        return float("nan")
    velocity = moments @ centres / (moments @ moments)
    return _root_mean_square(centres - moments[:, None] * velocity)


def _deviations(found: Track) -> tuple[np.ndarray, np.ndarray]:
    """Moments in [0, 1] and centres of the frames that show an object, less their means."""
    moments = np.linspace(0, 1, len(found.seen))[found.seen]
    centres = found.centres[found.seen]
    if not len(moments):
        return moments, centres
    return moments - moments.mean(), centres - centres.mean(axis=0)


def _root_mean_square(offsets: np.ndarray) -> float:
    return float(np.sqrt((offsets**2).sum(axis=-1).mean()))


def changes_of_velocity(found: Track) -> np.ndarray:
    """How far each frame but the first and last is from the middle of its neighbours, `[time - 2]`.

    NaN where one of the three shows no object.
    """
    centres = found.centres
    return np.linalg.norm(centres[1:-1] - (centres[:-2] + centres[2:]) / 2, axis=-1)


def colour_change(found: Track) -> float:
    """Mean distance of the object's colours in two frames, over all pairs of frames."""
    colours = found.colours[found.seen]
    if len(colours) < 2:
        return float("nan")
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    return float(distances[np.triu_indices(len(colours), 1)].mean())


def size_variation(found: Track) -> float:
    """Standard deviation of the object's area over the clip, over its mean."""
    mean = found.areas.mean()
    return float(found.areas.std() / mean) if mean > 0 else float("nan")


def read_frames(video: np.ndarray) -> tuple[list[str | None], list[str | None]]:
    """Shape and colour that the oracle's eye reads in each frame by itself; None if it cannot."""
    objects = [look(frame[None], 1).objects[0] for frame in video]
    return [found.shape for found in objects], [found.colour for found in objects]


def majority_share(names: Sequence[str | None]) -> float:
    """Share of the frames that have the most frequent name; a frame without a name has none."""
    counts = Counter(name for name in names if name is not None)
    return max(counts.values(), default=0) / len(names)


def neighbour_differences(video: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame and the next, `[time - 1]`, colours in [0, 1]."""
    return np.abs(np.diff(np.asarray(video, np.float64), axis=0)).mean(axis=(1, 2, 3)) / 2


def at_key_frames(differences: np.ndarray, key_frames: Sequence[int]) -> float:
    """Mean of the differences to and from key frames, over the mean of the others.

    Args:
      differences: `[time - 1]`, see `neighbour_differences`.
      key_frames: their numbers.
    """
    touches = np.zeros(len(differences) + 2, bool)
    for number in key_frames:
        touches[number] = touches[number + 1] = True  # the steps to it and from it, shifted by 1
    touches = touches[1:-1]
    rest = differences[~touches].mean()
    return float(differences[touches].mean() / rest) if rest > 0 else float("nan")


def slice_in_time(video: np.ndarray, found: Track, along_x: bool) -> np.ndarray:
    """The line of pixels through the middle of the object's path, over time: `[time, line, 3]`.

    Args:
      video: the clip.
      found: its object.
      along_x: a row of pixels; else a column.
    """
    middle = np.nanmedian(found.centres[:, 1 if along_x else 0]) if found.seen.any() else 0.5
    place = min(int(middle * video.shape[1]), video.shape[1] - 1)
    return video[:, place] if along_x else video[:, :, place]

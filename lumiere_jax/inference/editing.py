"""What the cascade does with pictures and videos that it is given: methods of `LumierePipeline`.

The conditional base model is shown a masked video and the mask (Lumiere, arXiv 2401.12945,
section 4); which pixels are known is all that tells image-to-video, inpainting, outpainting and
cinemagraphs apart.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from lumiere_jax.cascade.stage import IMAGE_STAGES
from lumiere_jax.data.video_io import resize_and_crop, to_float, to_uint8
from lumiere_jax.inference.sampling import SamplingOptions
from lumiere_jax.runtime.errors import UserError

FITS = ("crop", "pad")
_PART_UNKNOWN = 0.25  # of a pixel of the model; more makes all of it unknown


class Editing:
    """See `LumierePipeline`, which has these methods."""

    base: tuple[Any, Any]  # stage and parameters

    def animate(
        self, image: np.ndarray, prompts: Sequence[str], *, fit: str = "crop", **options: Any
    ) -> np.ndarray:
        """Image-to-video: the image is the first frame.

        Args:
          image: `[height, width, 3]` in [-1, 1], of any size.
          prompts: what is to happen; one video each.
          fit: "crop" cuts what is over from the longer side; "pad" keeps all of the image, and the
            model fills what is beside it.
          **options: of `LumierePipeline.__call__`.

        Returns:
          See `LumierePipeline.__call__`.

        Raises:
          UserError: likewise, or for an unknown fit.
        """
        frames = self.checked_frames(options.get("num_frames"))
        picture, inside = self._fitted(image[None], fit)
        video = np.repeat(picture, frames, axis=0)
        mask = np.zeros((*video.shape[:3], 1), bool)
        mask[0] = inside[0]
        return self(prompts, known=(video[None], mask[None]), **options)

    def cinemagraph(
        self, image: np.ndarray, region: np.ndarray, prompts: Sequence[str], *,
        paste: bool = True, feather: int = 2, **options: Any,
    ) -> np.ndarray:  # fmt: skip
        """A picture that stands still but for one region.

        Args:
          image: `[height, width, 3]` in [-1, 1], of any size.
          region: bool `[height, width]`, true where it is to move.
          prompts: what is to move; one video each.
          paste: puts the image's own pixels back outside of the region.
          feather: see `paste_back`.
          **options: of `LumierePipeline.__call__`.

        Returns:
          See `LumierePipeline.__call__`.

        Raises:
          UserError: likewise, or for a region of another size or without a pixel.
        """
        check_region(region[None], image[None])
        frames = self.checked_frames(options.get("num_frames"))
        picture, _ = self._fitted(image[None], "crop")
        unknown = self._fitted_change(region[None])
        mask = np.repeat(~unknown[..., None], frames, axis=0)
        mask[0] = True
        known = np.repeat(picture, frames, axis=0)[None], mask[None]
        finish = None
        if paste:
            finish = functools.partial(
                paste_back, video=image[None], region=region[None], feather=feather
            )
        return self(prompts, known=known, finish=finish, **options)

    def inpaint(
        self, video: np.ndarray, region: np.ndarray, prompts: Sequence[str], *,
        paste: bool = True, feather: int = 2, **options: Any,
    ) -> np.ndarray:  # fmt: skip
        """Makes a region of a video anew, and keeps the rest.

        Args:
          video: `[time, height, width, 3]` in [-1, 1], at the model's frame rate, of any size.
          region: bool `[time, height, width]`, or `[1, height, width]` for all frames: true where
            the video is to change.
          prompts: what the region is to show; one video each.
          paste: puts the video's own pixels back outside of the region.
          feather: see `paste_back`.
          **options: of `LumierePipeline.__call__`, without `num_frames`.

        Returns:
          See `LumierePipeline.__call__`.

        Raises:
          UserError: likewise, or for a video or region that cannot be used.
        """
        video = self._whole_frames(video)
        check_region(region, video)
        region = np.broadcast_to(region[: len(video)], video.shape[:3])
        small, _ = self._fitted(video, "crop")
        mask = ~self._fitted_change(region)[..., None]
        known = small[None], mask[None]
        finish = None
        if paste:
            finish = functools.partial(paste_back, video=video, region=region, feather=feather)
        return self(prompts, known=known, num_frames=len(video), finish=finish, **options)

    def outpaint(
        self, video: np.ndarray, prompts: Sequence[str], *,
        zoom: float = 1.0, paste: bool = True, feather: int = 2, **options: Any,
    ) -> np.ndarray:  # fmt: skip
        """Adds what is beside a video, until it is as square as the model's videos are.

        Args:
          video: see `inpaint`.
          prompts: what is beside it; one video each.
          zoom: size of the video within the new one; below 1 something is added on all sides.
          paste: see `inpaint`.
          feather: see `paste_back`.
          **options: see `inpaint`.

        Returns:
          See `LumierePipeline.__call__`.

        Raises:
          UserError: likewise, or if there is nothing to add.
        """
        if not 0 < zoom <= 1:
            raise UserError(f"zoom={zoom} must be above 0 and at most 1.")
        video = self._whole_frames(video)
        canvas, inside = padded_to_square(video, zoom)
        if inside.all():
            raise UserError(
                "the video is square already, so nothing is beside it; use a zoom below 1."
            )
        return self.inpaint(canvas, ~inside, prompts, paste=paste, feather=feather, **options)

    def video_to_video(
        self, video: np.ndarray, prompts: Sequence[str], *, strength: float = 0.6, **options: Any
    ) -> np.ndarray:
        """SDEdit (arXiv 2108.01073): adds noise to a video, and denoises it by another text.

        Args:
          video: `[time, height, width, 3]` in [-1, 1], at the model's frame rate, of any size.
          prompts: what it is to show; one video each.
          strength: how much noise, in [0, 1], see `SamplingOptions`: 0 gives the video back, as
            large as the base makes videos; 1 is text-to-video with the same seed.
          **options: see `inpaint`.

        Returns:
          See `LumierePipeline.__call__`.

        Raises:
          UserError: likewise, or for a strength outside of [0, 1].
        """
        if not 0 <= strength <= 1:
            raise UserError(f"strength={strength} must be between 0 and 1.")
        small, _ = self._fitted(self._whole_frames(video), "crop")
        if strength == 0:
            return _told(np.repeat(small[None], len(prompts), axis=0), options)
        initial = None if strength == 1 else small[None]
        chosen = SamplingOptions.from_config(
            self.base[0].config, num_steps=options.get("num_steps")
        )
        options["num_steps"] = max(round(chosen.num_steps * strength), 1)
        return self(prompts, initial=initial, strength=strength, num_frames=len(small), **options)

    def extend(
        self, video: np.ndarray, prompts: Sequence[str], *,
        num_frames: int, context: int | None = None, paste: bool = True, **options: Any,
    ) -> np.ndarray:  # fmt: skip
        """Goes on with a video: its last frames are shown as the first of a new clip, and so on.

        Args:
          video: see `inpaint`.
          prompts: what happens; one video each.
          num_frames: frames to add.
          context: frames that are shown of what there is; None for a quarter of a clip.
          paste: takes the given frames as they are into the result, where they are large enough.
          **options: see `inpaint`.

        Returns:
          `[num_prompts, len(video) + num_frames, height, width, 3]`.

        Raises:
          UserError: likewise, or for a context that does not fit into a clip.
        """
        length = self.base[0].config.data.num_frames
        context = min(max(length // 4, 1), len(video)) if context is None else context
        if not 0 < context < length or context > len(video):
            raise UserError(
                f"context={context} must be at least 1, below the {length} frames of a clip, and "
                f"not more than the {len(video)} frames of the video."
            )
        if num_frames < 1:
            raise UserError(f"num_frames={num_frames} to add must be 1 or more.")
        seeds = list(options.pop("seeds", None) or range(len(prompts)))
        base_only = {"base_only": True, "num_frames": length}
        made = np.repeat(self._fitted(video, "crop")[0][None], len(prompts), axis=0)
        begun = made.shape[1]
        for part in range(math.ceil(num_frames / (length - context))):
            shown = np.zeros((len(prompts), length, *made.shape[2:]), np.float32)
            shown[:, :context] = made[:, -context:]
            mask = np.zeros((*shown.shape[:-1], 1), bool)
            mask[:, :context] = True
            part_seeds = [(seed + part * 1_000_003) % 2**32 for seed in seeds]
            parts = options | base_only | {"on_batch": None}
            clip = self(prompts, known=(shown, mask), seeds=part_seeds, **parts)
            made = np.concatenate([made, clip[:, context:]], axis=1)
        made = made[:, : begun + num_frames]
        if self.super_resolution and not options.get("base_only"):
            made = self.refine_all(made, prompts, seeds, options)
        if paste:
            region = np.zeros((begun, *video.shape[1:3]), bool)
            made = np.array(made)
            made[:, :begun] = paste_back(made[:, :begun], video, region, 0)
        return _told(np.asarray(made), options)

    def _whole_frames(self, video: np.ndarray) -> np.ndarray:
        """As many frames of a video, from the first, as the base can make."""
        stage = self.base[0]
        factor = 2 ** (len(stage.config.model.widths) - 1) if stage.name not in IMAGE_STAGES else 1
        if len(video) < factor:
            raise UserError(
                f"the video has {len(video)} frames at the model's {stage.config.data.fps:g} fps; "
                f"at least {factor} are needed."
            )
        if len(video) >= stage.config.data.num_frames:
            return video
        return video[: len(video) // factor * factor]

    def _fitted(self, video: np.ndarray, fit: str) -> tuple[np.ndarray, np.ndarray]:
        """Frames at the base's size, and bool `[time, height, width, 1]` where they are."""
        if fit not in FITS:
            raise UserError(f"fit {fit!r} is unknown; use one of {', '.join(FITS)}.")
        inside = np.ones(video.shape[:3], bool)
        if fit == "pad":
            video, inside = padded_to_square(video)
        small = fit_video(video, self.base[0].config.data.resolution)
        return small, ~self._fitted_region(~inside)[..., None]

    def _fitted_region(self, region: np.ndarray) -> np.ndarray:
        """A region `[time, height, width]` at the base's size; it does not shrink."""
        size = self.base[0].config.data.resolution
        levels = [_fit_region(frame, size) for frame in region]
        return np.stack(levels) > 255 * _PART_UNKNOWN

    def _fitted_change(self, region: np.ndarray) -> np.ndarray:
        """A region that is to change, see `_fitted_region`, of which something must be left."""
        unknown = self._fitted_region(region)
        if not unknown.any():
            size = self.base[0].config.data.resolution
            raise UserError(
                f"nothing of the region is left in the central square at {size}×{size} pixels, "
                "which is what the model sees; draw a larger one, or one nearer to the middle."
            )
        return unknown


def _told(videos: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Hands videos that are made at once to `on_batch`, as `__call__` does its batches."""
    if options.get("on_batch"):
        options["on_batch"](0, videos)
    return videos


def check_region(region: np.ndarray, video: np.ndarray) -> None:
    """Makes sure that a region belongs to a video.

    Args:
      region: bool `[time or 1, height, width]`.
      video: `[time, height, width, 3]`.

    Raises:
      UserError: naming both sizes or numbers of frames, or an empty region.
    """
    if region.shape[1:] != video.shape[1:3]:
        raise UserError(
            f"the region is {region.shape[2]}×{region.shape[1]} pixels and the picture "
            f"{video.shape[2]}×{video.shape[1]}; draw it on a frame of the same size."
        )
    if len(region) > 1 and len(region) < len(video):
        raise UserError(
            f"the region has {len(region)} frames and the video {len(video)}; give one frame for "
            "all, or one for each."
        )
    if not region.any():
        raise UserError("the region is empty, so nothing would change; draw where it should.")


def fit_video(video: np.ndarray, size: int) -> np.ndarray:
    """Frames `[time, height, width, 3]` in [-1, 1], scaled to cover a square, cropped centrally."""
    if video.shape[1:3] == (size, size):
        return np.asarray(video, np.float32)
    return to_float(np.stack([resize_and_crop(f, (size, size)) for f in to_uint8(video)]))


def padded_to_square(video: np.ndarray, zoom: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A video in the middle of a grey square.

    Args:
      video: `[time, height, width, 3]`.
      zoom: share of the square's side that the longer side of the video takes.

    Returns:
      `[time, side, side, 3]`, and bool `[time, side, side]` where the video is.
    """
    time, height, width, _ = video.shape
    side = max(round(max(height, width) / zoom), height, width)
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((time, side, side, 3), np.float32)
    inside = np.zeros((time, side, side), bool)
    canvas[:, top : top + height, left : left + width] = video
    inside[:, top : top + height, left : left + width] = True
    return canvas, inside


def paste_back(made: np.ndarray, video: np.ndarray, region: np.ndarray, feather: int) -> np.ndarray:
    """Puts the known pixels of a video into what was made of it, where it is large enough.

    Args:
      made: `[batch, time, side, side, 3]`.
      video: `[time or 1, height, width, 3]`; one whose shorter side is below `side` is
        left out, since its pixels would be blurred.
      region: bool `[time or 1, height, width]`, where `made` stays.
      feather: pixels of `made` over which known ones are blended in, beside the region.

    Returns:
      Like `made`.
    """
    side = made.shape[2]
    if min(video.shape[1:3]) < side:
        return made
    source = fit_video(video, side)
    weights = np.stack([_known_weight(_fit_region(frame, side), feather) for frame in region])
    return made + weights[None, ..., None] * (source[None] - made)


def _known_weight(level: np.ndarray, feather: int) -> np.ndarray:
    """How much a known pixel counts: 1 away from the region, and 0 in it."""
    distance = ndimage.distance_transform_edt(level == 0) if level.any() else np.inf
    return np.clip(np.broadcast_to(distance, level.shape) / (feather + 1), 0, 1).astype(np.float32)


def _fit_region(frame: np.ndarray, size: int) -> np.ndarray:
    """Levels 0 to 255 of a region at the size of a square."""
    picture = np.repeat(255 * frame[..., None].astype(np.uint8), 3, axis=-1)
    return resize_and_crop(picture, (size, size))[..., 0]

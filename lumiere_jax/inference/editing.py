"""Image-to-video, inpainting and other edits: methods of `LumierePipeline`.

The conditional base model is shown a masked video and the mask (Lumiere, arXiv 2401.12945,
section 4). Image-to-video, inpainting, outpainting and cinemagraphs differ only in which pixels
are known.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lumiere_jax.cascade.config import frame_multiple
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.data.pixels import resize_and_crop, to_float, to_uint8
from lumiere_jax.inference.regions import check_region, in_words
from lumiere_jax.inference.tasks import VideoOptions
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.options import check
from lumiere_jax.runtime.sharding import gather

if TYPE_CHECKING:
    from lumiere_jax.cascade.stage import Stage
    from lumiere_jax.models.parameters import Params

Picture = Float[np.ndarray, "height width 3"]
Video = Float[np.ndarray, "time height width 3"]
Region = Bool[np.ndarray, "frames height width"]
Videos = Float[np.ndarray, "batch length side side 3"]

_SHARP_ENOUGH = 0.5  # of the side of a result; smaller pictures are a blur when enlarged to it
_PART_UNKNOWN = 0.25  # of a pixel of the model; more makes all of it unknown


class Editing:
    """Methods of `LumierePipeline`.

    Pictures and videos are in [-1, 1] and of any size, videos at the model's frame rate. Regions
    are true where something is to change. There is one result for each of the prompts, which say
    what it is to show; `options` are those of `LumierePipeline.__call__`. With `paste` the
    original pixels are put back where nothing is to change, blended over `feather` pixels, see
    `paste_back`. `UserError` is raised for what cannot be used.
    """

    if TYPE_CHECKING:  # what the pipeline has
        base: tuple[Stage, Params]
        super_resolution: list[tuple[Stage, Params]]
        show_progress: bool

        def __call__(self, prompts: Sequence[str], **options: Any) -> np.ndarray: ...  # noqa: D102

        @property
        def side(self) -> int: ...  # noqa: D102
        def checked_frames(self, num_frames: int | None) -> int: ...  # noqa: D102
        def refine_all(self, *arguments: Any) -> Any: ...  # noqa: D102
        def _checked_prompts(self, *arguments: Any) -> tuple[list[str], list[int]]: ...
        def _batches(self, count: int, size: int) -> Iterator[tuple[int, np.ndarray]]: ...

    def animate(
        self, image: Picture, prompts: Sequence[str], *,
        fit: str = VideoOptions.fit, **options: Any,
    ) -> Videos:  # fmt: skip
        """Image-to-video: the image is the first frame.

        With `fit="crop"` the longer side is cut; with "pad" all of the image is kept, and the model
        fills the rest of the square.
        """
        frames = self.checked_frames(options.get("num_frames"))
        picture, inside = self._fitted(image[None], fit)
        video = np.repeat(picture, frames, axis=0)
        mask = np.zeros((*video.shape[:3], 1), bool)
        mask[0] = inside[0]
        return self(prompts, known=(video[None], mask[None]), **options)

    def cinemagraph(
        self, image: Picture, region: Bool[np.ndarray, "rows columns"], prompts: Sequence[str], *,
        paste: bool = VideoOptions.paste, feather: int = VideoOptions.feather, **options: Any,
    ) -> Videos:  # fmt: skip
        """Sets one region of a picture, of the same size, in motion."""
        check_region(region[None], image[None].shape)
        frames = self.checked_frames(options.get("num_frames"))
        picture, _ = self._fitted(image[None])
        unknown = self._fitted_change(region[None])
        mask = np.repeat(~unknown[..., None], frames, axis=0)
        mask[0] = True
        known = np.repeat(picture, frames, axis=0)[None], mask[None]
        finish = _pasting(image[None], region[None], feather) if paste else None
        self._say_region(region[None])
        return self(prompts, known=known, finish=finish, **options)

    def inpaint(
        self, video: Video, region: Region, prompts: Sequence[str], *,
        paste: bool = VideoOptions.paste, feather: int = VideoOptions.feather, **options: Any,
    ) -> Videos:  # fmt: skip
        """Replaces a region of a video; the region has one frame for all, or one for each."""
        video = self._whole_frames(video)
        check_region(region, video.shape)
        region = np.broadcast_to(region[: len(video)], video.shape[:3])
        small, _ = self._fitted(video)
        mask = ~self._fitted_change(region)[..., None]
        finish = _pasting(video, region, feather) if paste else None
        known = small[None], mask[None]
        self._say_region(region)
        return self(prompts, known=known, num_frames=len(video), finish=finish, **options)

    def outpaint(
        self, video: Video, prompts: Sequence[str], *, zoom: float = VideoOptions.zoom,
        paste: bool = VideoOptions.paste, feather: int = VideoOptions.feather, **options: Any,
    ) -> Videos:  # fmt: skip
        """Extends the picture of a video beyond its edges, to a square.

        `zoom` is the size of the video within the new one; below 1 all sides are extended.
        """
        check(VideoOptions, {"zoom": zoom})
        video = self._whole_frames(video)
        base_side = self.base[0].config.data.resolution
        side = base_side if options.get("base_only") else self.side
        canvas, inside = padded_to_square(video, zoom, side)
        if inside.all():
            raise UserError(
                "the video is square already, so there is nothing to add; use a zoom below 1."
            )
        return self.inpaint(canvas, ~inside, prompts, paste=paste, feather=feather, **options)

    def video_to_video(
        self, video: Video, prompts: Sequence[str], *,
        strength: float = VideoOptions.strength, **options: Any,
    ) -> Videos:  # fmt: skip
        """SDEdit (arXiv 2108.01073): adds noise to a video, and denoises it with another text.

        `strength` is how much noise, see `SamplingOptions`: 0 returns the video at the base's size,
        1 is text-to-video with the same seed.
        """
        check(VideoOptions, {"strength": strength})
        small, _ = self._fitted(self._whole_frames(video))
        if strength == 0:
            videos = np.repeat(small[None], len(prompts), axis=0)
            if options.get("on_batch"):
                options["on_batch"](0, videos)
            return videos
        initial = None if strength == 1 else small[None]
        config = self.base[0].config
        chosen = SamplingOptions.from_config(config, num_steps=options.get("num_steps"))
        steps = max(round(chosen.num_steps * strength), 1)  # super-resolution takes all of its own
        return self(
            prompts, initial=initial, strength=strength, base_steps=steps, num_frames=len(small),
            **options,
        )  # fmt: skip

    def extend(
        self, video: Video, prompts: Sequence[str], *, num_frames: int,
        context: int | None = VideoOptions.context, paste: bool = VideoOptions.paste,
        batch_size: int = 8, **options: Any,
    ) -> Videos:  # fmt: skip
        """Adds frames to a video: its last ones are the first of a new clip, and so on.

        `context` is how many frames are shown to the model; None for a quarter of a clip.
        """
        length = self.base[0].config.data.num_frames
        context = min(max(length // 4, 1), len(video)) if context is None else context
        if not 0 < context < length or context > len(video):
            raise UserError(
                f"context={context} must be at least 1, below the {length} frames of a clip, and "
                f"at most the {len(video)} frames of the video."
            )
        check(VideoOptions, {"num_frames": num_frames})
        prompts, seeds = self._checked_prompts(prompts, options.pop("seeds", None))
        each, on_batch = options.pop("each", None), options.pop("on_batch", None)
        small, begun, videos = self._fitted(video)[0], len(video), []
        for begin, rows in self._batches(len(prompts), batch_size):
            own = None if each is None else [each[row] for row in rows]
            made = self._extended(
                small, [prompts[row] for row in rows], [seeds[row] for row in rows],
                num_frames, context, options | {"each": own, "batch_size": len(rows)},
            )[: len(prompts) - begin]  # fmt: skip
            if paste:
                region = np.zeros((begun, *video.shape[1:3]), bool)
                made[:, :begun] = paste_back(made[:, :begun], video, region, 0)
            videos.append(made)
            if on_batch is not None:
                on_batch(begin, made)
        return np.concatenate(videos)

    def _extended(
        self, video: np.ndarray, prompts: Sequence[str], seeds: list[int],
        num_frames: int, context: int, options: dict[str, Any],
    ) -> np.ndarray:  # fmt: skip
        """A batch of continuations of a video at the base's size, with it, at full size."""
        length = self.base[0].config.data.num_frames
        made = np.repeat(video[None], len(prompts), axis=0)
        for part in range(math.ceil(num_frames / (length - context))):
            part_seeds = [(seed + part * 1_000_003) % 2**32 for seed in seeds]
            clip = self._continued(made[:, -context:], prompts, part_seeds, options)
            made = np.concatenate([made, clip[:, context:]], axis=1)
        made = made[:, : len(video) + num_frames]
        if self.super_resolution and not options.get("base_only"):
            return np.array(gather(self.refine_all(made, prompts, seeds, options)))
        return made

    def _continued(
        self, shown: np.ndarray, prompts: Sequence[str], seeds: list[int], options: dict[str, Any]
    ) -> np.ndarray:
        """Clips of the base that begin with the frames that are shown."""
        length = self.base[0].config.data.num_frames
        known = np.zeros((len(prompts), length, *shown.shape[2:]), np.float32)
        mask = np.zeros((*known.shape[:-1], 1), bool)
        known[:, : shown.shape[1]], mask[:, : shown.shape[1]] = shown, True
        options = options | {"base_only": True, "num_frames": length}
        return self(prompts, known=(known, mask), seeds=seeds, **options)

    def _say_region(self, region: Region) -> None:
        """What was understood of a mask can be seen before hours of work."""
        if self.show_progress:
            print(f"region: {in_words(region)}", file=sys.stderr, flush=True)

    def _whole_frames(self, video: np.ndarray) -> np.ndarray:
        """As many frames of a video, from the first, as the base can make."""
        config = self.base[0].config
        multiple = frame_multiple(config)
        if len(video) < multiple:
            raise UserError(
                f"the video has {len(video)} frames at the model's {config.data.fps:g} fps; at "
                f"least {multiple} are needed."
            )
        if len(video) >= config.data.num_frames:
            return video
        return video[: len(video) // multiple * multiple]

    def _fitted(self, video: np.ndarray, fit: str = "crop") -> tuple[np.ndarray, np.ndarray]:
        """Frames at the base's size, and bool `[time, height, width, 1]` where they are."""
        check(VideoOptions, {"fit": fit})
        inside = np.ones(video.shape[:3], bool)
        size = self.base[0].config.data.resolution
        if fit == "pad":
            # Four times as fine as the model, for edges that fall within its pixels.
            video, inside = padded_to_square(video, 1.0, 4 * size)
        small = fit_video(video, size)
        return small, ~self._fitted_region(~inside)[..., None]

    def _fitted_region(self, region: np.ndarray) -> np.ndarray:
        """A region `[time, height, width]` at the base's size; it does not shrink."""
        size = self.base[0].config.data.resolution
        return np.stack([_fit_region(frame, size) for frame in region]) > 255 * _PART_UNKNOWN

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


def _pasting(video: np.ndarray, region: np.ndarray, feather: int) -> Callable[..., np.ndarray]:
    return functools.partial(paste_back, video=video, region=region, feather=feather)


def fit_video(video: Video, size: int) -> Float[np.ndarray, "time {size} {size} 3"]:
    """Frames in [-1, 1], scaled to cover a square, cropped centrally."""
    if video.shape[1:3] == (size, size):
        return np.asarray(video, np.float32)
    return to_float(np.stack([resize_and_crop(f, (size, size)) for f in to_uint8(video)]))


def padded_to_square(
    video: Video, zoom: float, most: int
) -> tuple[Float[np.ndarray, "time side side 3"], Bool[np.ndarray, "time side side"]]:
    """A video in the middle of a grey square, and where in the square it is.

    Its longer side takes the share `zoom` of the square's side, which is `most` pixels at most; a
    video that is too large for it is made smaller first.
    """
    time, height, width, _ = video.shape
    side = max(round(max(height, width) / zoom), height, width)
    if side > most:
        scale, side = most / side, most
        height, width = (max(round(length * scale), 1) for length in (height, width))
        video = to_float(np.stack([resize_and_crop(f, (height, width)) for f in to_uint8(video)]))
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((time, side, side, 3), np.float32)
    inside = np.zeros((time, side, side), bool)
    canvas[:, top : top + height, left : left + width] = video
    inside[:, top : top + height, left : left + width] = True
    return canvas, inside


def paste_back(
    made: Float[np.ndarray, "batch time side side 3"],
    video: Float[np.ndarray, "#time height width 3"],
    region: Bool[np.ndarray, "#time height width"],
    feather: int,
) -> Float[np.ndarray, "batch time side side 3"]:
    """Puts the known pixels of a video into what was made of it, outside of a region.

    They are blended in over `feather` pixels beside the region. A video whose shorter side is below
    half of `side` is left out, since its pixels would be a blur; a larger one is enlarged, since
    super-resolution does not keep what is known.
    """
    side = made.shape[2]
    if min(video.shape[1:3]) < side * _SHARP_ENOUGH:
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

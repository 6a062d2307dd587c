"""The tasks of the pipeline, and the one declaration of what each of them takes.

The flags of the commands, the fields of requests to a server and its page derive from it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from lumiere_jax.cascade.sampling_options import shared_options
from lumiere_jax.runtime.options import Option, declared, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What a video is made with, beside how its stages sample."""

    negative_prompt: str = option("", "Negative prompt: what the video should not show.")
    seed: int | None = option(
        None, "The same prompt and seed give the same video; drawn at random if not given.",
        minimum=0, maximum=2**32 - 1,
    )  # fmt: skip
    base_only: bool = option(False, "Leave super-resolution out: quicker, and smaller.")
    num_frames: int | None = option(
        None, "Frames of the video; more than in training are made in overlapping windows.",
        minimum=1,
    )  # fmt: skip
    style: str | None = option(None, "Name of the style.")
    alpha: float = option(1.0, "Share of the style's weights.", minimum=0, maximum=1)
    strength: float = option(
        0.6, "How much the video changes: 0 keeps it, 1 forgets it.", minimum=0, maximum=1
    )
    fit: Literal["crop", "pad"] = option(
        "crop", "crop cuts the picture to a square; pad keeps all of it, and the model fills the "
        "rest of the square.", choices=("crop", "pad"),
    )  # fmt: skip
    paste: bool = option(True, "Put the original pixels back where nothing is to change.")
    feather: int = option(
        2, "Width in pixels of the border that blends original and new pixels.",
        minimum=0, served_maximum=64,
    )  # fmt: skip
    zoom: float = option(1.0, "Size of the video within the new one.", minimum=0.1, maximum=1)
    context: int | None = option(
        None, "Frames of the video that the model is shown; a quarter of a clip if not given.",
        minimum=1,
    )  # fmt: skip


OPTIONS = (*declared(VideoOptions).values(), *shared_options().values())
"""All that can be chosen for a video beside its prompt and files."""

COMMON = ("negative_prompt", "seed", *(o.name for o in shared_options().values()), "base_only")
"""Names of the options that every task takes beside its prompt."""

FILES = {
    "image": "The picture: a PNG, JPEG or WebP file.",
    "video": "The video to start from.",
    "mask": "The region that changes: a picture, animated or not, or a video, white there, or "
    "painted there on a transparent background; a box X,Y,WIDTH,HEIGHT; or a moving box "
    "FRAME:X,Y,WIDTH,HEIGHT;FRAME:X,Y,WIDTH,HEIGHT;….",
}
"""Files that tasks take, each with a sentence of help."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A task."""

    name: str
    about: str
    base: str = "stunet_conditional"  # kind of the base stage that it needs
    files: tuple[str, ...] = ()  # its input files, all of them required
    options: tuple[str, ...] = ()  # its own fields of `VideoOptions`
    required: tuple[str, ...] = ()  # those of them that must be given
    help: Mapping[str, str] = dataclasses.field(default_factory=dict)  # where it differs here

    @property
    def from_text(self) -> bool:
        """Whether a prompt is all it needs, so that one program makes many videos."""
        return not self.files

    @property
    def command(self) -> str:
        """The command that does it."""
        return "sample" if self.from_text else self.name

    def declared(self) -> list[Option]:
        """The task's own options."""
        return [
            dataclasses.replace(o, help=self.help.get(o.name, o.help))
            for o in map(declared(VideoOptions).__getitem__, self.options)
        ]


_TASKS = (
    Task("text_to_video", "Make a video from a prompt.", "stunet", options=("num_frames",)),
    Task("stylize", "Make a video from a prompt, in a style.", "stunet",
         options=("num_frames", "style", "alpha")),
    Task("video_to_video", "Change a video into what the prompt says.", "stunet",
         files=("video",), options=("strength",)),
    Task("animate", "Make a video that begins with a picture.",
         files=("image",), options=("fit", "num_frames")),
    Task("inpaint", "Replace a region of a video.",
         files=("video", "mask"), options=("paste", "feather")),
    Task("outpaint", "Extend the picture of a video beyond its edges, to a square.",
         files=("video",), options=("zoom", "paste", "feather")),
    Task("cinemagraph", "Set one region of a picture in motion.",
         files=("image", "mask"), options=("num_frames", "paste", "feather")),
    Task("extend", "Continue a video with more frames.",
         files=("video",), options=("num_frames", "context", "paste"),
         required=("num_frames",), help={"num_frames": "Frames to add."}),
)  # fmt: skip
TASKS = {task.name: task for task in _TASKS}

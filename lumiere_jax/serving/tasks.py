"""What can be asked for: the tasks of the pipeline, and what each of them takes."""

import dataclasses

COMMON = (
    "negative_prompt", "seed", "steps", "time_power", "sampler", "guidance_scale",
    "guidance_from", "guidance_to", "base_only",
)  # fmt: skip
"""Options that every task takes beside its prompt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task.

    Attributes:
      about: what it does.
      base: kind of the base stage that it needs.
      command: the binary that does the same, for the note in the video.
      files: names of what is uploaded, all of it needed.
      options: those of its own.
      batches: whether different prompts and seeds can be made at once.
    """

    about: str
    base: str
    command: str
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    batches: bool = False


TASKS = {
    "text_to_video": Task(
        about="A video of what the prompt says.",
        base="stunet",
        command="sample",
        options=("num_frames",),
        batches=True,
    ),
    "stylize": Task(
        about="A video of what the prompt says, in a style.",
        base="stunet",
        command="sample",
        options=("num_frames", "style", "alpha"),
        batches=True,
    ),
    "video_to_video": Task(
        about="A video changed to what the prompt says.",
        base="stunet",
        command="video_to_video",
        files=("video",),
        options=("strength",),
    ),
    "animate": Task(
        about="A picture as the first frame of a video.",
        base="stunet_conditional",
        command="animate",
        files=("image",),
        options=("fit", "num_frames"),
    ),
    "inpaint": Task(
        about="A region of a video made anew.",
        base="stunet_conditional",
        command="inpaint",
        files=("video", "mask"),
        options=("paste", "feather"),
    ),
    "outpaint": Task(
        about="What is beside a video, until it is square.",
        base="stunet_conditional",
        command="outpaint",
        files=("video",),
        options=("zoom", "paste", "feather"),
    ),
    "cinemagraph": Task(
        about="A picture of which one region moves.",
        base="stunet_conditional",
        command="cinemagraph",
        files=("image", "mask"),
        options=("num_frames", "paste", "feather"),
    ),
    "extend": Task(
        about="A video that goes on for some frames.",
        base="stunet_conditional",
        command="extend",
        files=("video",),
        options=("num_frames", "context", "paste"),
    ),
}
"""Name -> task."""

FILES = ("image", "video", "mask")
OPTIONS = (
    "num_frames", "style", "alpha", "strength", "fit", "paste", "feather", "zoom", "context",
)  # fmt: skip
"""Options that only some tasks take."""

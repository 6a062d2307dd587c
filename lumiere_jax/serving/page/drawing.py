"""Regions that visitors draw on a frame; a process of its own decodes all of it."""

import functools
import html
import io
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from anyio import CapacityLimiter
from PIL import Image

from lumiere_jax.inference.tasks import TASKS
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import decoding
from lumiere_jax.serving.decoding import Decoded
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.settings import Settings

_NOTHING = "Paint the region on the picture first, or upload a mask."
_GONE = "The file was kept for an hour only; choose it again."


def problem(text: str, title: str = "That does not work") -> gr.Error:
    """What a visitor did wrong, as a message of the page."""
    return gr.Error(html.escape(text), title=title, print_exception=False)


def content_of(file: Mapping[str, Any]) -> bytes:
    """The bytes of a file of a form; Gradio has checked that it is one that was uploaded."""
    try:
        return Path(file["path"]).read_bytes()
    except OSError as error:
        raise problem(_GONE) from error


def contents(task: str, form: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that a task needs, of the values of its form; a message if one is missing."""
    files = {}
    for name, noun in (("video", "video"), ("image", "picture")):
        if name in TASKS[task].files:
            if not form[name]:
                raise problem(f"Choose a {noun} first, or click an example.")
            files[name] = content_of(form[name])
    if "mask" in TASKS[task].files:
        painted = (form["editor"] or {}).get("layers") or []
        drawn = [form["mask"]] if form["mask"] else painted
        if not drawn:
            raise problem(_NOTHING)
        files["mask"] = content_of(drawn[0])
    return files


class Drawing:
    """What happens around an editor: frames to paint on, and what a region was found to be."""

    def __init__(self, models: Models, settings: Settings, folder: Path):
        """New files are written to `folder`, which is Gradio's."""
        self._models, self._settings, self._folder = models, settings, folder
        self._decoders = CapacityLimiter(2)

    async def first_frame(self, task: str, file: Mapping[str, Any]) -> tuple[str, int]:
        """A picture to paint on, the first frame of a file, and its shorter side in pixels."""
        found = await self._decoded(task, {TASKS[task].files[0]: content_of(file)})
        with Image.open(io.BytesIO(found.frame)) as frame:  # we made it
            return self._kept(found.frame), min(frame.size)

    async def taken(self, task: str, video: bytes) -> tuple[str, str, int]:
        """A result as files: the video, its first frame, and the shorter side of it in pixels."""
        found = await self._decoded(task, {"video": video})
        with Image.open(io.BytesIO(found.frame)) as frame:  # we made it
            return self._kept(video, "video.mp4"), self._kept(found.frame), min(frame.size)

    async def region(self, task: str, form: Mapping[str, Any]) -> tuple[str, str]:
        """How much of the frame is to change, and a picture of it; a message if it cannot be."""
        found = await self._decoded(task, contents(task, form))
        return f"region: {found.region}", self._kept(found.frame)

    async def box(self, task: str, form: Mapping[str, Any]) -> str:
        """A mask: the box around what is drawn."""
        found = await self._decoded(task, contents(task, form))
        with Image.open(io.BytesIO(found.frame)) as frame:  # we made it
            mask = Image.new("L", frame.size)
        mask.paste(255, found.box)
        mask.save(content := io.BytesIO(), format="PNG")
        return self._kept(content.getvalue(), "box.png")

    async def _decoded(self, task: str, files: dict[str, bytes]) -> Decoded:
        """What files hold, at their own size."""
        decode = functools.partial(
            decoding.decode, files, fps=self._models.by_base[TASKS[task].base].fps, side=None,
            least_frames=1, limits=self._settings.limits, scratch=self._settings.scratch,
            keeps=False, shows=True,
        )  # fmt: skip
        try:
            return await anyio.to_thread.run_sync(decode, limiter=self._decoders)
        except UserError as error:
            raise problem(str(error)) from error

    def _kept(self, content: bytes, name: str = "frame.png") -> str:
        """The path of a new file in Gradio's folder, which nobody can guess."""
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        return str(folder / name)

"""Regions that visitors draw on a frame; a process of its own decodes all of it."""

import functools
import html
import io
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
from lumiere_jax.serving.page.kept import Kept
from lumiere_jax.serving.settings import Settings

_NOTHING = "Paint the region on the picture first, or upload a mask."
_GONE = "The file was kept for an hour only; choose it again."
_FULL = "Too many of your files are kept now; try again later."


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
    """What happens around an editor: frames to paint on, and what a region was found to be.

    New files are those of a client, whose share of the disk they count against.
    """

    def __init__(self, models: Models, settings: Settings, kept: Kept):
        """New files are written to what is `kept`."""
        self._models, self._settings, self._kept = models, settings, kept
        self._decoders = CapacityLimiter(2)

    async def first_frame(self, client: str, task: str, file: Mapping[str, Any]) -> tuple[str, int]:
        """A picture to paint on, the first frame of a file, and its shorter side in pixels."""
        found = await self._decoded(task, {TASKS[task].files[0]: content_of(file)})
        return self._new(client, found.frame), min(_blank(found.frame).size)

    async def taken(self, client: str, task: str, video: bytes) -> tuple[str, str, int]:
        """A result as files: the video, its first frame, and the shorter side of it in pixels."""
        found = await self._decoded(task, {"video": video})
        side = min(_blank(found.frame).size)
        return self._new(client, video, "video.mp4"), self._new(client, found.frame), side

    async def region(self, client: str, task: str, form: Mapping[str, Any]) -> tuple[str, str]:
        """How much of the frame is to change, and a picture of it; a message if it cannot be."""
        found = await self._decoded(task, contents(task, form))
        return f"region: {found.region}", self._new(client, found.frame)

    async def box(self, client: str, task: str, form: Mapping[str, Any]) -> str:
        """A mask: the box around what is drawn."""
        found = await self._decoded(task, contents(task, form))
        mask = _blank(found.frame)
        mask.paste(255, found.box)
        mask.save(content := io.BytesIO(), format="PNG")
        return self._new(client, content.getvalue(), "box.png")

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

    def _new(self, client: str, content: bytes, name: str = "frame.png") -> str:
        if not self._kept.take(client, len(content)):
            raise problem(_FULL)
        return self._kept.write(content, name)


def _blank(frame: bytes) -> Image.Image:
    """An empty mask for a frame that we made."""
    with Image.open(io.BytesIO(frame)) as picture:
        return Image.new("L", picture.size)

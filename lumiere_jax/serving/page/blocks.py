"""The page: forms for the tasks that the weights can do, and the videos that come of them."""

import functools
import html
import json
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import LRUCache
from starlette.types import ASGIApp

from lumiere_jax.inference import vocabulary
from lumiere_jax.inference.tasks import COMMON, FILES, OPTIONS, TASKS
from lumiere_jax.serving import decoding
from lumiere_jax.serving.model import Models
from lumiere_jax.serving.page import drawing, examples, fields, shown
from lumiere_jax.serving.page.client import Client, Refused
from lumiere_jax.serving.page.drawing import Drawing
from lumiere_jax.serving.page.kept import Kept
from lumiere_jax.serving.replies import Info
from lumiere_jax.serving.settings import Settings
from lumiere_jax.serving.states import FINISHED

Component = gr.components.Component
Form = dict[str, Component]

_NAMES = {
    "text_to_video": "Text to video", "animate": "Image to video", "inpaint": "Inpaint",
    "outpaint": "Outpaint", "cinemagraph": "Cinemagraph", "extend": "Extend",
    "video_to_video": "Video to video", "stylize": "Style",
}  # fmt: skip
_RARE = ("feather", "paste", "context", "fit")  # options of tasks that few need
# Parts of a form that are not sent.
_ASIDE = ("doubt", "clip", "region", "seen", "check", "box", "make")
_MOST_VIDEOS, _MOST_KEPT = 8, 60  # of one click; entries of the history
# The menu below a result: it says which result and which task, and then forgets the choice.
_USE = """element.addEventListener("change", ({ target }) => {
  if (target.value) trigger("use", { task: target.value, job: target.dataset.job });
  target.value = "";
});"""
# What was typed outlives a reload of the same tab; Gradio reloads the page of a new server.
_DRAFT = "'lumiere_jax' + location.search"
_KEEP = "(...typed) => {{ sessionStorage.setItem(" + _DRAFT + ", JSON.stringify([{}, typed])); }}"
_KEPT = f"() => [sessionStorage.getItem({_DRAFT}) || '']"
_TO_TOP = "() => window.scrollTo({ top: 0, behavior: 'smooth' })"
_NOTHING_YET = "<p>Your videos appear here.</p>"
_CSS = """
.gallery { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.gallery figure { margin: 0; } .gallery figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.gallery video, .gallery img, .job img { width: 100%; border-radius: 8px; display: block;
  image-rendering: pixelated; background: #000; }
.gallery a { text-decoration: underline; margin: 0 !important; padding: 0 !important; }
.gallery select { display: block; width: 100%; margin-top: 6px; border-radius: 8px; }
 .job progress { width: 100%; } .job p { margin: 4px 0; }
.given { height: 220px; margin: auto; display: block; border-radius: 8px; }
.doubt.prose:not(:empty) { border-left: 4px solid #e0a030; padding-left: 10px; }
footer { display: none !important; }
"""


def build(app: ASGIApp, info: Info, models: Models, settings: Settings, kept: Kept) -> FastAPI:
    """The page as an application, to be put behind a `Gate`.

    `app` is the HTTP interface, `info` what it can do, and `kept` has the folder where Gradio keeps
    files. What the page has for a session that does not ask for it, its `state.forget` drops.
    """
    blocks = Page(Client(app), info, models, settings, kept).blocks()
    kept.spare()  # the examples
    limit = settings.limits.streams
    blocks.queue(max_size=limit, default_concurrency_limit=None, api_open=False)
    blocks.state_session_capacity = limit
    # Gradio forgets no session that never asks for its news, but here the oldest of many.
    blocks._queue.pending_event_ids_session = LRUCache(2000)
    host = FastAPI()
    host.state.forget = functools.partial(_forget, blocks._queue)
    # Fonts are those of the visitor's system: others would come from another host.
    theme = gr.themes.Soft(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return gr.mount_gradio_app(
        host, blocks, "/", footer_links=[], run_history=False, show_error=False,
        max_file_size=settings.limits.upload_bytes, ssr_mode=False, enable_monitoring=False,
        mcp_server=False, pwa=False, theme=theme, css=_CSS,
    )  # fmt: skip


async def _forget(queue: Any, session: str) -> None:
    """Drops what Gradio has for a session, as it does itself when a stream is cut."""
    await queue.clean_events(session_hash=session)
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)


class Page:
    """The forms, and what happens when something is clicked.

    The state is in the browser: `history` is `{"entries": […], "shown": number of one}`, where an
    entry has the ids of jobs, their task and prompt, and the file that they were made from.
    """

    def __init__(self, client: Client, info: Info, models: Models, settings: Settings, kept: Kept):
        """Makes nothing yet."""
        self._client, self._info, self._models, self._settings = client, info, models, settings
        self._options = {option.name: option for option in OPTIONS}
        self._drawing = Drawing(models, settings, kept)
        self._forms: dict[str, Form] = {}
        self._example_events: dict[str, Any] = {}

    def blocks(self) -> gr.Blocks:
        """The whole page."""
        fps = next(iter(self._info.tasks.values())).fps
        made = examples.write(self._settings.scratch / "examples", 3, fps)
        blocks = gr.Blocks(title="lumiere_jax", analytics_enabled=False, delete_cache=(60, 3600))
        with blocks:
            gr.Markdown("# lumiere_jax\nMake videos from words, pictures and other videos.")
            self._history = gr.BrowserState({}, storage_key="lumiere_jax.jobs", secret="lumiere")
            self._timer = gr.Timer(1.0, active=False)
            self._add_vocabulary()
            with gr.Tabs() as self._tabs:
                for task in (name for name in _NAMES if name in self._info.tasks):
                    with gr.Tab(_NAMES[task], id=task):
                        self._forms[task] = self._form(task, made)
            self._common = self._common_fields()
            self._add_results()
            license = f"weights: {self._info.license}"
            gr.Markdown(f"[HTTP interface](/docs) · {self._info.program} · {license}")
            self._listen(blocks)
        return blocks

    # --- What is on it -------------------------------------------------------------------------

    def _add_vocabulary(self) -> None:
        for sentence in sorted({task.prompts for task in self._info.tasks.values()} - {""}):
            with gr.Accordion("What this model knows", open=False):
                gr.Markdown(f"It is small, and was only shown {sentence}")

    def _form(self, task: str, made: Sequence[examples.Example]) -> Form:
        gr.Markdown(self._info.tasks[task].about)
        form: Form = {}
        with gr.Row(equal_height=False):
            if TASKS[task].files:
                with gr.Column(min_width=320):
                    form |= self._file_fields(task)
            with gr.Column(min_width=320):
                form |= self._words_and_options(task)
                self._add_examples(task, form, made)
        return form

    def _file_fields(self, task: str) -> Form:
        form: Form = {}
        if "video" in TASKS[task].files:
            # Gradio's own field for videos loads 31 MB of FFmpeg into the browser.
            form["video"] = gr.File(label="Video", file_types=["video", ".gif"], height=140)
            form["clip"] = gr.HTML(js_on_load=None, padding=False)
        else:
            form["image"] = gr.Image(
                label="Picture", sources=["upload"], type="filepath", height=220
            )
        return form | (self._region_fields() if "mask" in TASKS[task].files else {})

    def _region_fields(self) -> Form:
        editor = gr.ImageEditor(
            label="Region", sources=(), transforms=(), layers=False,
            brush=_brush(examples.SIDE), height=380, buttons=["fullscreen"], type="filepath",
            placeholder="Choose a file above: its first frame appears here, to be painted on.",
        )  # fmt: skip
        gr.Markdown(
            "Paint on the picture what is to change, and leave all else. Or upload a mask of its "
            "size, white or painted on a transparent background there."
        )
        with gr.Row():
            check = gr.Button("Check the region", size="sm", min_width=120)
            box = gr.Button("Turn it into a box", size="sm", min_width=120)
        mask = gr.File(label="Mask in place of the painting", file_types=["image", "video"],
                       height=140)  # fmt: skip
        region = gr.Markdown(elem_classes="region")
        seen = gr.Image(
            show_label=False, interactive=False, visible=False, height=220, buttons=[],
            elem_classes="seen",
        )  # fmt: skip
        return {"editor": editor, "check": check, "box": box, "mask": mask, "region": region,
                "seen": seen}  # fmt: skip

    def _words_and_options(self, task: str) -> Form:
        prompt = gr.Textbox(
            label="Prompt", lines=2, placeholder="What the video should show",
            max_length=self._info.limits.prompt,
        )  # fmt: skip
        form: Form = {"prompt": prompt, "doubt": gr.Markdown(elem_classes="doubt")}
        own = {option.name: option for option in TASKS[task].declared()}
        rare = [name for name in own if name in _RARE]
        form |= {n: fields.field(own[n], self._info, [task]) for n in own if n not in rare}
        if rare:
            with gr.Accordion("More options of this task", open=False):
                form |= {name: fields.field(own[name], self._info, [task]) for name in rare}
        return form | {"make": gr.Button("Make the video", variant="primary")}

    def _add_examples(self, task: str, form: Form, made: Sequence[examples.Example]) -> None:
        rows: list[list[Any]] = [[prompt] for prompt in examples.PROMPTS]
        names = [name for name in ("video", "image", "editor", "mask") if name in form]
        if names:
            changes = task in ("inpaint", "video_to_video")
            rows = [
                [example.image if name == "editor" else getattr(example, name) for name in names]
                + [example.changed if changes else example.prompt]
                for example in made
            ]
        inputs = [form[name] for name in (*names, "prompt")]
        labels = [row[-1] for row in rows] if {"mask", "video"} & set(names) else None
        shown = gr.Examples(rows, inputs, label="Examples: click one", example_labels=labels)
        self._example_events[task] = shown.load_input_event

    def _common_fields(self) -> Form:
        tasks = list(self._info.tasks)
        with gr.Row():
            count = gr.Slider(
                1, _MOST_VIDEOS, 1, step=1, label="Videos", min_width=260,
                info="Each has a seed of its own.",
            )  # fmt: skip
            seed = fields.field(self._options["seed"], self._info, tasks)
        with gr.Accordion("More options", open=False):
            return {"count": count, "seed": seed} | {
                name: fields.field(self._options[name], self._info, tasks)
                for name in COMMON
                if name != "seed"
            }

    def _add_results(self) -> None:
        self._progress = gr.HTML(elem_id="progress", js_on_load=None, padding=False)
        self._cancel = gr.Button("Cancel", variant="stop", visible=False)
        self._gallery = gr.HTML(_NOTHING_YET, elem_id="results", js_on_load=_USE)
        self._listed = gr.Dataset(
            components=[gr.Textbox(visible=False), gr.Textbox(visible=False)], samples=[],
            headers=["Task", "Prompt"], type="index", label="Made in this browser", visible=False,
        )  # fmt: skip

    # --- What happens --------------------------------------------------------------------------

    def _listen(self, blocks: gr.Blocks) -> None:
        look: dict[str, Any] = {
            "inputs": [self._history, self._gallery],
            "outputs": [self._progress, self._gallery, self._cancel, self._timer],
            "preprocess": False, "show_progress": "hidden",
        }  # fmt: skip
        every = [c for form in (*self._forms.values(), self._common) for c in form.values()]
        blocks.load(
            self._restore, gr.Textbox(visible=False), [self._tabs, *every], js=_KEPT,
            show_progress="hidden",
        )  # fmt: skip
        opened = blocks.load(
            self._list, self._history, self._listed, preprocess=False, show_progress="hidden"
        )
        opened.then(self._look, **look)
        self._timer.tick(self._look, **look)
        self._cancel.click(self._cancel_jobs, **look)
        self._listed.click(
            self._choose, [self._listed, self._history], self._history, preprocess=False
        ).then(self._look, **look)
        self._gallery.use(
            self._use, self._history, [self._tabs, *every], preprocess=False, show_progress="hidden"
        ).success(js=_TO_TOP)
        for task, form in self._forms.items():
            self._listen_to_form(task, form, look)
            if "editor" in form:
                self._listen_to_editor(task, form)

    def _listen_to_form(self, task: str, form: Form, look: Mapping[str, Any]) -> None:
        model = self._models.by_base[TASKS[task].base]
        form["prompt"].change(  # type: ignore[attr-defined]  # Gradio adds events as it is loaded
            lambda prompt: vocabulary.doubt(model.config, " ".join(prompt.split())),
            form["prompt"], form["doubt"], show_progress="hidden", trigger_mode="always_last",
        )  # fmt: skip
        if "clip" in form:
            form["video"].change(  # type: ignore[attr-defined]
                lambda file: shown.given(file["path"]) if file else "", form["video"],
                form["clip"], preprocess=False, show_progress="hidden",
            )  # fmt: skip
        sent = {name: c for name, c in form.items() if name not in _ASIDE} | self._common
        names, typed = map(list, zip(*self._typed(task).items(), strict=True))
        place = ", ".join(json.dumps(part) for part in (task, names))
        gr.on([c.input for c in typed], None, typed, js=_KEEP.format(place))
        form["make"].click(  # type: ignore[attr-defined]
            self._making(task, list(sent)), [self._history, *sent.values()],
            [self._history, self._listed], preprocess=False, show_progress="hidden",
        ).then(self._look, **look, scroll_to_output=True)  # fmt: skip

    def _listen_to_editor(self, task: str, form: Form) -> None:
        found, names = [form["region"], form["seen"]], [*TASKS[task].files, "editor"]
        given = [form[name] for name in names]

        async def show(request: gr.Request, file: Any) -> Any:
            path, side = await self._drawing.first_frame(request.state.client, task, file)
            return gr.ImageEditor(path, brush=_brush(side))

        async def tell(request: gr.Request, *values: Any) -> tuple[Any, ...]:
            form = dict(zip(names, values, strict=True))
            text, picture = await self._drawing.region(request.state.client, task, form)
            return text, gr.Image(picture, visible=True)

        async def tell_mask(request: gr.Request, *values: Any) -> tuple[Any, ...]:
            form = dict(zip(names, values, strict=True))
            if not form["mask"] or not values[0]:
                return "", gr.Image(visible=False)
            return await tell(request, *values)

        async def draw(request: gr.Request, *values: Any) -> str:
            form = dict(zip(names, values, strict=True))
            return await self._drawing.box(request.state.client, task, form)

        raw: dict[str, Any] = {"inputs": given, "preprocess": False}
        shown = given[0].upload(  # type: ignore[attr-defined]  # Gradio adds events when loaded
            show, given[0], form["editor"], preprocess=False
        )
        shown.then(tell_mask, outputs=found, **raw)
        form["check"].click(tell, outputs=found, **raw)  # type: ignore[attr-defined]
        form["mask"].change(tell_mask, outputs=found, **raw)  # type: ignore[attr-defined]
        form["box"].click(draw, outputs=form["mask"], **raw)  # type: ignore[attr-defined]
        self._example_events[task].then(tell, outputs=found, **raw)

    def _making(self, task: str, names: Sequence[str]) -> Callable[..., Any]:
        """What happens at the click that makes videos."""

        async def make(request: gr.Request, history: Any, *values: Any) -> Any:
            form = dict(zip(names, values, strict=True))
            if not form["prompt"].strip():
                raise drawing.problem("Write a prompt: what should the video show?")
            files = drawing.contents(task, form)
            given = form.get("video") or form.get("image") or {}
            for name in (*FILES, "editor"):
                form.pop(name, None)
            ids = await self._submit(request, form | {"task": task}, files)
            entry = {"ids": ids, "task": task, "prompt": form["prompt"]}
            entry["before"] = given.get("path", "")
            entries = [entry, *_entries(history)][:_MOST_KEPT]
            history = {"entries": entries, "shown": 0}
            return history, self._list(history)

        return make

    async def _submit(
        self, request: gr.Request, form: dict[str, Any], files: dict[str, bytes]
    ) -> list[str]:
        """Submits a job for each seed; the ids of those that were accepted, at least one."""
        count, seed = int(form.pop("count") or 1), str(form.pop("seed") or "").strip()
        if seed and not (seed.isascii() and seed.isdigit()):
            raise drawing.problem(f"The seed must be a whole number, not {seed!r}.")
        first = int(seed) if seed else secrets.randbelow(2**32)
        ids: list[str] = []
        for number in range(min(count, _MOST_VIDEOS)):
            fields_sent = fields.sent(form | {"seed": first + number})
            try:
                answer = await self._client.ask(
                    request, "POST", "/jobs", data=fields_sent, files=files or None
                )
            except Refused as refused:
                if not ids:
                    raise drawing.problem(str(refused), "Not accepted") from refused
                gr.Warning(html.escape(str(refused)), title=f"{len(ids)} of {count} were accepted")
                return ids
            ids.append(answer.json()["id"])
        return ids

    async def _look(self, request: gr.Request, history: Any, before: str) -> list[Any]:
        """The state of the jobs that are shown, again and again until they have ended."""
        entry = _shown(history)
        if not entry:
            return [gr.skip()] * 3 + [gr.Timer(active=False)]
        try:
            jobs = await self._client.jobs(request, entry["ids"])
        except Refused as refused:
            told = f"No news: {html.escape(str(refused))}"
            return [told, gr.skip(), gr.skip(), gr.Timer(active=True)]
        uses = {task: _NAMES[task] for task in self._forms if TASKS[task].files}
        gallery = shown.gallery(jobs, entry["before"] if len(jobs) else "", uses)
        is_over = all(job["state"] in FINISHED for job in jobs)
        progress = shown.progress(jobs) if jobs else "These videos were deleted after some time."
        return [
            progress, gr.skip() if gallery == before else gallery, gr.Button(visible=not is_over),
            gr.Timer(active=not is_over),
        ]  # fmt: skip

    async def _cancel_jobs(self, request: gr.Request, history: Any, before: str) -> list[Any]:
        try:
            for job in await self._client.jobs(request, _shown(history).get("ids", [])):
                if job["state"] not in FINISHED:
                    await self._client.ask(request, "DELETE", f"/jobs/{job['id']}")
        except Refused as refused:
            raise drawing.problem(str(refused)) from refused
        return await self._look(request, history, before)

    async def _use(self, request: gr.Request, event: gr.EventData, history: Any) -> dict[Any, Any]:
        """A result becomes what another task begins with."""
        form = self._forms[event.task]
        try:
            answer = await self._client.ask(request, "GET", f"/jobs/{uuid.UUID(event.job)}/video")
        except Refused as refused:
            raise drawing.problem(str(refused)) from refused
        video, picture, side = await self._drawing.taken(
            request.state.client, event.task, answer.content
        )
        found = {form["prompt"]: _shown(history)["prompt"]}
        found[form.get("video") or form["image"]] = video if "video" in form else picture
        if "editor" in form:
            found |= {
                form["editor"]: gr.ImageEditor(picture, brush=_brush(side)),
                form["mask"]: None, form["region"]: "", form["seen"]: gr.Image(visible=False),
            }  # fmt: skip
        return {self._tabs: gr.Tabs(selected=event.task)} | found

    def _list(self, history: Any) -> gr.Dataset:
        rows = [[_NAMES.get(e["task"], ""), e["prompt"]] for e in _entries(history)]
        return gr.Dataset(samples=rows, visible=bool(rows))

    def _choose(self, number: int, history: Any) -> dict[str, Any]:
        return {"entries": _entries(history), "shown": number}

    def _typed(self, task: str) -> Form:
        """The fields of a task that a visitor types in, or chooses values of."""
        form = self._forms[task] | self._common
        return {n: c for n, c in form.items() if n not in (*_ASIDE, *FILES, "editor")}

    def _restore(self, request: gr.Request, draft: str) -> dict[Any, Any]:
        """What was typed before the page was loaded again, or else the settings of its address."""
        given = dict(request.query_params)
        task, names, typed = json.loads(draft) if draft else (given.get("task", ""), [], [])
        if task not in self._forms:
            return {self._tabs: gr.skip()}
        places = self._typed(task)
        found = {
            places[n]: fields.read(places[n], text) for n, text in given.items() if n in places
        }
        if names == list(places):  # the server may have other weights now
            found = dict(zip(places.values(), typed, strict=True))
        return {self._tabs: gr.Tabs(selected=task)} | found


def _brush(side: int) -> gr.Brush:
    """A brush for a frame whose shorter side has so many pixels."""
    colour = "rgba({}, {}, {}, 0.7)".format(*decoding.TINT)
    return gr.Brush(
        default_size=max(side // 12, 1), colors=[colour], default_color=colour, color_mode="fixed"
    )


def _entries(history: Any) -> list[dict[str, Any]]:
    """Those of the history, which the browser may have lost or changed."""
    entries = history.get("entries") if isinstance(history, dict) else None
    return entries if isinstance(entries, list) else []


def _shown(history: Any) -> dict[str, Any]:
    entries = _entries(history)
    number = history.get("shown", 0) if entries else 0
    return entries[number] if number in range(len(entries)) else {}

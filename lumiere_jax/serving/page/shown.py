"""Jobs as visitors see them: how far they are, and the videos."""

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from lumiere_jax.serving.states import CANCELLED, DONE, FAILED, FINISHED, QUEUED

Job = dict[str, Any]
"""As the HTTP interface describes it."""


def progress(jobs: Sequence[Job]) -> str:
    """HTML of the jobs that have not ended."""
    return "".join(map(_progress, (job for job in jobs if job["state"] not in FINISHED)))


def _progress(job: Job) -> str:
    fraction = (job["progress"] or {}).get("fraction")
    value = f' value="{fraction}"' if fraction else ""
    preview = (
        f'<img src="{html.escape(job["preview_url"])}" alt="Preview of some frames">'
        if job["preview_url"]
        else ""
    )
    return (
        f'<div class="job"><p role="status">{html.escape(described(job))}</p>'
        f'<progress max="1"{value} aria-label="Progress"></progress>{preview}</div>'
    )


def described(job: Job) -> str:
    """What happens with a job, in words."""
    state, ahead = job["state"], job["queue_position"]
    if state == FAILED:
        return f"Failed: {job['error']}"
    if state == CANCELLED:
        return "Cancelled"
    if state == DONE:
        return f"Done in {_span(job['started_at'], job['finished_at'])}"
    elapsed = _span(job["created_at"])
    if state == QUEUED:
        return f"Waiting, {ahead} ahead · {elapsed}" if ahead else f"Next in the queue · {elapsed}"
    return f"{_stage(job['progress'])} · {elapsed}"


def _stage(progress: dict[str, Any] | None) -> str:
    if not progress:
        return "Starting"
    stage, left = progress["stage"], progress["seconds_left"]
    if stage in ("loading", "writing"):
        return {"loading": "Loading the weights", "writing": "Writing the video"}[stage]
    if stage == "compiling":
        return "Compiling, since it is the first of its kind"
    at = f"step {progress['step']} of {progress['total']}"
    return f"{stage.capitalize()}: {at}" + (f", {_duration(left)} left" if left else "")


def _span(begin: str, end: str | None = None) -> str:
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return _duration((until - datetime.fromisoformat(begin)).total_seconds())


def _duration(seconds: float) -> str:
    whole = max(round(seconds), 0)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


def gallery(jobs: Sequence[Job], before: str, uses: Mapping[str, str]) -> str:
    """HTML of the jobs that have ended, beside what they were made from, a file of the page.

    `before` may be empty; `uses` are tasks that a result can be handed to, with their names.
    """
    ended = [job for job in jobs if job["state"] in FINISHED]
    if not ended:
        return ""
    caption = "<figcaption><b>Before</b></figcaption>"
    first = [f"<figure>{given(before, 'before')}{caption}</figure>"] if before else []
    results = [_result(job, uses) for job in ended]
    return f'<div class="gallery">{"".join([*first, *results])}</div>'


def given(path: str, kind: str = "given") -> str:
    """HTML of a picture or video that a visitor chose, a file of the page."""
    source = html.escape(f"/gradio_api/file={path}")
    if path.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".gif")):
        return f'<img class="{kind}" src="{source}" alt="What was chosen">'
    return _video(source, kind)


def _video(source: str, kind: str) -> str:
    return f'<video class="{kind}" src="{source}" autoplay loop muted playsinline controls></video>'


def _result(job: Job, uses: Mapping[str, str]) -> str:
    options = {k: v for k, v in job["options"].items() if k != "region" and v not in ("", None)}
    link = html.escape("/?" + urlencode({"task": job["task"]} | options))
    parts = [f"<b>{html.escape(described(job))}</b>", f"seed {options['seed']}"]
    if "region" in job["options"]:
        parts.append(f"region: {html.escape(job['options']['region'])}")
    if job["video_url"]:
        source = html.escape(job["video_url"])
        name = f"lumiere-{job['id'][:8]}.mp4"
        parts.append(f'<a href="{source}" download="{name}">Download MP4</a>')
    parts.append(f'<a href="{link}" target="_blank">Link to these settings</a>')
    shown = _video(source, "after") if job["video_url"] else ""
    notes = "".join(f"<p>⚠ {html.escape(text)}</p>" for text in job["warnings"])
    menu = _menu(job["id"], uses) if job["video_url"] and uses else ""
    return f"<figure>{shown}<figcaption>{' · '.join(parts)}{notes}{menu}</figcaption></figure>"


def _menu(job: str, uses: Mapping[str, str]) -> str:
    options = [f'<option value="{task}">{name}</option>' for task, name in uses.items()]
    first = '<option value="">Use this video in …</option>'
    label = 'aria-label="Use this video in another task"'
    return f'<select data-job="{html.escape(job)}" {label}>{first}{"".join(options)}</select>'

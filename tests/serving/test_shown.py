"""What the page says of jobs."""

import pytest

from lumiere_jax.serving.page import shown

JOB = {
    "id": "0123456789", "task": "inpaint", "state": "running", "queue_position": None,
    "options": {"prompt": "<b>&", "seed": 7, "negative_prompt": "", "region": "6.6% of the frame"},
    "created_at": "2026-11-30T00:00:00+00:00", "started_at": "2026-11-30T00:00:10+00:00",
    "finished_at": None, "progress": None, "error": None, "warnings": [], "preview_url": None,
    "video_url": None,
}  # fmt: skip


def job(**changes):
    return JOB | changes


def at(stage, step=0, left=None):
    return {"stage": stage, "step": step, "total": 50, "fraction": 0.25, "seconds_left": left}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "queued", "queue_position": 2}, "Waiting, 2 ahead · "),
        ({"state": "queued", "queue_position": 0}, "Next in the queue · "),
        ({}, "Starting · "),
        ({"progress": at("loading")}, "Loading the weights · "),
        ({"progress": at("compiling")}, "Compiling, since it is the first of its kind · "),
        ({"progress": at("base", 3, 100.4)}, "Base: step 3 of 50, 1 min 40 s left · "),
        ({"progress": at("writing")}, "Writing the video · "),
        ({"state": "failed", "error": "no <room>"}, "Failed: no <room>"),
        ({"state": "cancelled"}, "Cancelled"),
        ({"state": "done", "finished_at": "2026-11-30T00:01:30+00:00"}, "Done in 80 s"),
    ],
)
def test_states_in_words(changes, words):
    assert shown.described(job(**changes)).startswith(words)


def test_unfinished_jobs_have_a_bar_and_a_preview():
    running = job(progress=at("base", 3), preview_url="/api/v1/jobs/x/preview.png?number=2")
    text = shown.progress([running, job(state="cancelled")])
    assert text.count("<progress") == 1 and 'value="0.25"' in text
    assert 'src="/api/v1/jobs/x/preview.png?number=2"' in text
    assert shown.gallery([running], "", {}) == ""


def test_results_stand_beside_what_they_were_made_from():
    done = job(
        state="done", video_url="/api/v1/jobs/x/video", finished_at=JOB["started_at"],
        warnings=["They know <b> only."],
    )  # fmt: skip
    text = shown.gallery([done], '/tmp/"x".mp4', {"extend": "Extend"})
    assert text.index("Before") < text.index("Done in 0 s") and text.count("<video") == 2
    assert 'src="/gradio_api/file=/tmp/&quot;x&quot;.mp4"' in text
    assert 'download="lumiere-01234567.mp4"' in text and "region: 6.6% of the frame" in text
    assert 'href="/?task=inpaint&amp;prompt=%3Cb%3E%26&amp;seed=7"' in text
    assert 'data-job="0123456789"' in text and '<option value="extend">Extend</option>' in text
    assert "They know &lt;b&gt; only." in text and "<b>&" not in text
    assert "<img" in shown.gallery([done], "/tmp/x.png", {})

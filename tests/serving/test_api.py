"""The interface: what it takes, refuses and gives; the worker is played by the tests."""

import json
import re
import threading
import time

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lumiere_jax.serving.store import Store
from tests.serving.live import PROMPT
from tests.serving.site import Site
from tests.serving.test_uploads import mask, picture, video

NOBODY = "00000000-0000-4000-8000-000000000000"


def test_a_job_from_its_begin_to_its_end(site):
    reply = site.post(seed=5, steps=2, negative_prompt="blur")
    assert reply.status_code == 202
    job = reply.json()
    assert job["state"] == "queued" and job["queue_position"] == 0 and job["progress"] is None
    assert job["options"] == {
        "prompt": PROMPT, "negative_prompt": "blur", "seed": 5, "steps": 2, "base_only": False
    }  # fmt: skip
    url = job["url"].removeprefix("/api/v1")
    assert site.client.get(f"{url}/preview.png").status_code == 404
    refused = site.client.get(f"{url}/video")
    assert refused.status_code == 409
    assert refused.json() == {"detail": "there is no video: the job is queued"}
    claimed = site.worker.claim()
    progress = {"stage": "base", "step": 1, "total": 2, "fraction": 0.5, "seconds_left": None}
    site.worker.report([claimed], progress, {claimed.id: b"PNG"})
    job = site.client.get(url).json()
    assert (job["state"], job["progress"], job["previews"]) == ("running", progress, 1)
    assert site.client.get(job["preview_url"].removeprefix("/api/v1")).content == b"PNG"
    site.worker.finish(claimed, b"MP4")
    job = site.client.get(url).json()
    assert job["state"] == "done" and job["video_bytes"] == 3 and job["finished_at"]
    reply = site.client.get(job["video_url"].removeprefix("/api/v1"))
    assert reply.content == b"MP4" and reply.headers["content-type"] == "video/mp4"


def test_what_was_understood_of_a_mask_is_told(site, tmp_path):
    files = {"image": picture(), "mask": mask()}
    job = site.post(files, task="cinemagraph").json()
    assert job["options"]["region"] == "16.7% of the frame"
    assert site.client.get(job["url"].removeprefix("/api/v1")).json()["options"] == job["options"]
    painted = Image.new("RGBA", (48, 32))
    painted.paste((0, 0, 0, 255), (4, 4, 20, 20))
    painted.save(tmp_path / "mask.png")
    files["mask"] = (tmp_path / "mask.png").read_bytes()
    region = site.post(files, task="cinemagraph").json()["options"]["region"]
    assert region.startswith("16.7% of the frame; mask mask.png: its black parts are to change too")
    files["mask"] = mask(box=(0, 0, 48, 32))
    reply = site.post(files, task="cinemagraph")
    assert reply.status_code == 422 and "covers all of the frame" in reply.json()["detail"]


def test_a_seed_is_drawn_where_none_is_given(site):
    seeds = {site.post().json()["options"]["seed"] for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"task": "paint"}, "task: Input should be 'text_to_video'"),
        ({"prompt": ""}, "prompt: "),
        ({"prompt": "  "}, "prompt: is empty"),
        ({"prompt": "x" * 51}, "prompt: has 51 characters; at most 50"),
        ({"prompt": "a\0b"}, "prompt: has control characters"),
        ({"negative_prompt": "\x1b[2J"}, "negative_prompt: has control"),
        ({"seed": "-1"}, "seed: "),
        ({"seed": str(2**32)}, "seed: "),
        ({"steps": "10"}, "steps: 10 is more than the 9"),
        ({"steps": "0"}, "steps: "),
        ({"steps": "many"}, "steps: "),
        ({"guidance_scale": "nan"}, "guidance_scale: "),
        ({"guidance_scale": "inf"}, "guidance_scale: "),
        ({"guidance_from": "0.2", "guidance_to": "0.4"}, "guidance from time 0.2 to 0.4"),
        ({"time_power": "0"}, "time_power: "),
        ({"time_power": "inf"}, "time_power: "),
        ({"threshold_max": "0.5"}, "threshold_max=0.5 must be 0"),
        ({"overlap": "8"}, "overlap: must be below the 8 frames"),
        ({"sampler": "ddpm"}, "sampler: 'ddpm' is not one of ddim"),
        ({"num_frames": "21"}, "num_frames: 21 is more than the 20"),
        ({"num_frames": "7"}, "num_frames=7 must be a multiple of 2"),
        ({"strength": "0.5"}, "strength: does not go with the task 'text_to_video'"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"task": "outpaint", "zoom": "0.004"}, "zoom: Input should be greater than or equal to"),
        ({"task": "stylize", "style": "../style"}, "style: there is none of this name; use style"),
        ({"task": "animate"}, "image: is missing; the task 'animate' needs this file"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(shared_site, fields, detail):
    reply = shared_site.post(**fields)
    assert reply.status_code == 422 and reply.json()["detail"].startswith(detail), reply.text
    assert shared_site.store.counts()["queued"] == 0


def test_files(site, tmp_path):
    clip = video(tmp_path)
    for task, files, more in (
        ("animate", {"image": picture()}, {}),
        ("inpaint", {"video": clip, "mask": mask()}, {}),
        ("extend", {"video": clip}, {"num_frames": 3}),
    ):
        reply = site.post(files, task=task, **more)
        assert reply.status_code == 202, reply.text
    assert site.worker.files(site.worker.claim()) == {"image": picture()}
    for task, files, code, detail in (
        ("animate", {"image": ("x", b"no", "image/png")}, 415, "image: is not a supported picture"),
        ("animate", {"image": picture()[:60]}, 422, "image: is damaged"),
        ("animate", {"image": picture(), "mask": mask()}, 422, "mask: does not go with"),
        ("inpaint", {"video": clip, "mask": mask((9, 9), (0, 0, 9, 9))}, 422, "mask mask.png is"),
        ("outpaint", {"video": picture()}, 415, "video: is not a supported video"),
        ("video_to_video", {"video": video(tmp_path, 1)}, 422, "video: has 1 frames"),
        ("extend", {"video": clip}, 422, "num_frames: is missing"),
    ):
        reply = site.post(files, task=task)
        assert reply.status_code == code, (task, detail, reply.text)
        assert (reply.status_code, reply.json()["detail"][: len(detail)]) == (code, detail)
    # Neither the name nor the kind that is claimed matters.
    reply = site.post({"image": ("../../x.exe", picture(), "text/html")}, task="animate")
    assert reply.status_code == 202


def test_a_full_queue(site):
    assert [site.post().status_code for _ in range(5)] == [202] * 4 + [429]
    reply = site.post()
    assert reply.json()["detail"] == "4 jobs are waiting; try again later"
    assert int(reply.headers["retry-after"]) > 0
    assert site.store.counts()["queued"] == 4


def test_names_of_jobs(site):
    for path, code in ((f"/jobs/{NOBODY}", 404), ("/jobs/1", 422), ("/jobs/%00", 422)):
        for place in ("", "/video", "/preview.png", "/events"):
            reply = site.client.get(path + place)
            assert reply.status_code == code and isinstance(reply.json()["detail"], str)
        assert site.client.delete(path).status_code == code


def test_only_the_jobs_that_are_named_are_listed(site):
    first, second, _ = (site.post().json()["id"] for _ in range(3))
    listed = site.client.get("/jobs", params={"ids": [first, second, NOBODY]}).json()
    assert [job["id"] for job in listed] == [second, first]
    assert site.client.get("/jobs").status_code == 422
    assert site.client.get("/jobs", params={"ids": [NOBODY] * 101}).status_code == 422


def test_cancelling(site):
    job = site.post().json()["id"]
    assert site.client.delete(f"/jobs/{job}").json()["state"] == "cancelled"
    assert site.worker.claim() is None
    assert site.client.delete(f"/jobs/{job}").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("asked", "code", "content", "content_range"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
        ("bytes=²-", 200, b"0123456789", None),
    ],
)
def test_ranges(shared_site, asked, code, content, content_range):
    job = shared_site.done()
    headers = {} if asked is None else {"range": asked.encode()}
    reply = shared_site.client.get(f"/jobs/{job}/video", headers=headers)
    assert (reply.status_code, reply.content) == (code, content)
    assert reply.headers.get("content-range") == content_range
    assert reply.headers["accept-ranges"] == "bytes"


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_events_tell_every_change_until_the_end(site):
    job = site.post().json()["id"]

    def work():
        claimed = site.worker.claim()
        for step in (1, 2):
            progress = {"stage": "base", "step": step, "total": 2, "fraction": step / 2}
            site.worker.report([claimed], progress | {"seconds_left": None}, {})
            time.sleep(1.2)
        site.worker.finish(claimed, b"MP4")

    thread = threading.Timer(0.8, work)
    thread.start()
    reply = site.client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": "77\n"})
    thread.join()
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.count("event: job") == len(events(reply.text))
    told = [(event["state"], (event["progress"] or {}).get("step")) for event in events(reply.text)]
    assert told == [("queued", None), ("running", 1), ("running", 2), ("done", 2)]
    again = site.client.get(f"/jobs/{job}/events")
    assert [event["state"] for event in events(again.text)] == ["done"]


def test_idle_streams_are_kept_alive_and_bounded(site, monkeypatch):
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.3)
    job = site.post().json()["id"]
    refused = []

    def look_and_end():
        refused.append(site.client.get(f"/jobs/{job}/events"))
        site.store.cancel(job)

    thread = threading.Timer(1.5, look_and_end)
    thread.start()
    reply = site.client.get(f"/jobs/{job}/events")
    thread.join()
    assert ": ping" in reply.text and events(reply.text)[-1]["state"] == "cancelled"
    assert refused[0].status_code == 429 and "too many streams" in refused[0].json()["detail"]


def test_head_is_get_without_its_body(site):
    job = site.post().json()["id"]
    for path in ("/info", f"/jobs/{job}", "/health/live", "/metrics"):
        reply, whole = site.client.head(path), site.client.get(path)
        assert reply.status_code == whole.status_code == 200 and reply.content == b"", path
        assert reply.headers["content-type"] == whole.headers["content-type"]
    assert int(site.client.head("/info").headers["content-length"]) > 100
    assert site.client.head(f"/jobs/{NOBODY}").status_code == 404
    assert site.client.head(f"/jobs/{job}/events").status_code == 405


def test_info(site):
    info = site.client.get("/info").json()
    assert list(info["tasks"]) == [
        "text_to_video", "stylize", "video_to_video", "animate", "inpaint", "outpaint",
        "cinemagraph", "extend",
    ]  # fmt: skip
    animate = info["tasks"]["animate"]
    assert animate["files"] == ["image"] and "fit" in animate["options"]
    assert animate["fps"] == animate["frames"] == 8 and animate["steps"] == 2
    assert animate["sizes"] == [16, 64]
    assert info["options"]["steps"] == {
        "type": "integer", "help": "Denoising steps of every stage.", "minimum": 1, "maximum": 9,
        "above": None, "choices": [],
    }  # fmt: skip
    assert {name for task in info["tasks"].values() for name in task["options"]} == {
        "prompt", *info["options"]
    }  # fmt: skip
    assert info["styles"] == ["style"] and info["license"] == "MIT"
    assert info["limits"]["steps"] == 9 and info["limits"]["keep_seconds"] == 86400


def test_a_bundle_without_some_stages(cascade, tmp_path):
    from lumiere_jax.checkpoints.exporting import export

    export([str(cascade["stunet"])], tmp_path / "bundle")
    site = Site(tmp_path / "bundle", tmp_path)
    assert list(site.client.get("/info").json()["tasks"]) == ["text_to_video", "video_to_video"]
    reply = site.post({"image": picture()}, task="animate")
    assert reply.status_code == 422 and "weights of this server cannot do" in reply.json()["detail"]
    site.database.close()


def test_health_and_metrics(site):
    reply = site.client.get("/health")
    assert reply.status_code == 503 and reply.json()["reason"] == "no worker is running"
    assert site.client.get("/health/live").json() == {"live": True}
    site.worker.sign_on()
    site.post()
    reply = site.client.get("/health")
    assert (reply.status_code, reply.json()["ready"], reply.json()["queued"]) == (200, True, 1)
    site.client.get(f"/jobs/{NOBODY}")
    page = site.client.get("/metrics").text
    for line in (
        'lumiere_jobs{state="queued"} 1.0',
        "lumiere_workers 1.0",
        'lumiere_jobs_accepted_total{task="text_to_video"} 1.0',
        'lumiere_http_requests_total{code="404",method="GET",route="/api/v1/jobs/{job_id}"} 1.0',
    ):
        assert line in page
    assert NOBODY not in page and float(re.search(r"queue_wait_seconds (\d\S*)", page)[1]) >= 0


def test_a_database_that_is_gone(site, tmp_path):
    site.database.close()
    for file in tmp_path.glob("q*"):
        file.unlink()
    (tmp_path / "q").mkdir()
    for reply in (site.post(), site.client.get(f"/jobs/{NOBODY}")):
        assert reply.status_code == 503 and reply.headers["retry-after"]
        assert reply.json()["detail"].startswith("the database of jobs cannot be reached")
    assert site.client.get("/health").json()["reason"] == "the database cannot be reached"
    assert str(tmp_path) not in reply.text


def test_a_defect_is_not_told(site, monkeypatch):
    def broken(*arguments):
        raise ValueError("/root/secret")

    monkeypatch.setattr(Store, "get", broken)
    reply = site.client.get(f"/jobs/{NOBODY}")
    assert reply.status_code == 500 and "secret" not in reply.text and reply.json()["detail"]
    counted = 'requests_total{code="500",method="GET",route="/api/v1/jobs/{job_id}"} 1.0'
    assert counted in site.client.get("/metrics").text


def test_pages(site):
    root = TestClient(site.app, base_url="http://x")
    page = root.get("/")  # the page itself is tested in a server
    assert page.status_code == 503 and "being loaded" in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    docs = root.get("/docs")
    assert docs.status_code == 200 and "https://" not in docs.text
    assert root.get("/openapi.json").json()["info"]["title"] == "lumiere_jax"
    for path in ("/../command.py", "/%2e%2e/command.py", "/%00", "/nothing", "/api/v1/nothing"):
        reply = root.get(path)
        assert reply.status_code == 404 and reply.headers["x-content-type-options"] == "nosniff"

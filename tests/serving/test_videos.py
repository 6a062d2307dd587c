"""`/v1/videos`: with the client that OpenAI publishes, and what its routes refuse."""

import base64

import openai
import pytest

from lumiere_jax.data.video_io import read_video
from tests.serving.live import PROMPT, LiveServer
from tests.serving.site import Site
from tests.serving.test_uploads import picture, video

KEYS = ["k" * 16, "l" * 16]
URL = "http://x/v1/videos"
NOBODY = "00000000-0000-4000-8000-000000000000"
ASKED = {"prompt": PROMPT, "seconds": "1", "size": "128x128"}
OURS = {"base_only": "true", "steps": "1", "seed": "7", "negative_prompt": "blur"}


@pytest.fixture(name="server", scope="module")
def fixture_server(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "keys").write_text("\n".join(KEYS))
    server = LiveServer(bundle, folder / "data", f"--api_key_file={folder / 'keys'}")
    yield server
    server.kill()


def ask(server, key):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=300)


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_the_official_client_from_a_prompt_to_an_mp4(server, tmp_path):
    videos = ask(server, KEYS[0]).videos
    (model,) = ask(server, KEYS[0]).models.list()
    made = videos.create_and_poll(**ASKED, model=model.id, extra_body=OURS, poll_interval_ms=100)
    assert (made.status, made.progress, made.error) == ("completed", 100, None), made
    assert (made.seconds, made.size, made.prompt) == ("1", "128x128", PROMPT)
    assert made.created_at <= made.completed_at < made.expires_at == made.completed_at + 86400
    options = server.job(made.id)["options"]
    assert (options["seed"], options["num_frames"], options["negative_prompt"]) == (7, 8, "blur")
    videos.download_content(made.id).write_to_file(tmp_path / "x.mp4")
    frames = read_video(tmp_path / "x.mp4", fps=8)
    assert frames.shape == (8, 128, 128, 3)
    thumbnail = videos.download_content(made.id, variant="thumbnail").read()
    assert thumbnail[:4] == b"RIFF" and thumbnail[8:12] == b"WEBP"

    # A picture begins another video, and each picture one of its own.
    red, blue = (
        videos.create_and_poll(
            **ASKED, input_reference=("p.png", picture(color=color)), extra_body=OURS
        )
        for color in ("red", "blue")
    )
    assert server.job(red.id)["task"] == server.job(blue.id)["task"] == "animate"
    contents = {videos.download_content(video.id).read() for video in (made, red, blue)}
    assert len(contents) == 3

    # Pages of the list; others have a list of their own.
    assert ask(server, KEYS[1]).videos.list().data == []
    assert [video.id for video in videos.list(limit=1)] == [blue.id, red.id, made.id]
    assert [video.id for video in videos.list(limit=1, order="asc")] == [made.id, red.id, blue.id]

    # One that is being made ends with its deletion, and the worker goes on.
    slow = videos.create(prompt=PROMPT, extra_body={"steps": 250})
    server.wait(slow.id, states=["running"])
    assert videos.retrieve(slow.id).status == "in_progress"
    assert videos.delete(slow.id).deleted
    for gone in (slow.id, NOBODY, "video_1"):
        with pytest.raises(openai.NotFoundError, match="there is no such job"):
            videos.retrieve(gone)
    cancelled = videos.create(prompt=PROMPT)
    server.client.delete(f"/jobs/{cancelled.id}", headers={"x-api-key": KEYS[0]})
    cancelled = videos.retrieve(cancelled.id)
    assert (cancelled.status, cancelled.error.code) == ("failed", "cancelled")
    with pytest.raises(openai.NotFoundError, match="no content: the video is failed"):
        videos.download_content(cancelled.id)
    assert videos.create_and_poll(**ASKED, extra_body=OURS).status == "completed"


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_what_the_official_client_is_refused(server):
    videos = ask(server, KEYS[0]).videos
    with pytest.raises(openai.AuthenticationError, match="API key is missing or wrong"):
        ask(server, "nobody").videos.create(prompt=PROMPT)
    with pytest.raises(openai.NotFoundError) as caught:
        videos.create(prompt=PROMPT, model="sora-2")
    assert caught.value.param == "model" and "this server has 'bundle'" in str(caught.value)
    for call in (
        lambda: videos.remix(NOBODY, prompt=PROMPT),
        lambda: videos.edit(prompt=PROMPT, video=b"x"),
        lambda: videos.extend(prompt=PROMPT, seconds="4", video=b"x"),
        lambda: videos.create_character(name="x", video=b"x"),
    ):
        with pytest.raises(openai.NotFoundError, match="does not remix, edit or extend"):
            call()


def test_json_and_files_of_ours(site, tmp_path):
    reply = site.client.post(URL, json={"prompt": PROMPT, "seconds": 0.5, "base_only": True})
    assert reply.status_code == 200, reply.text
    job = site.store.get(reply.json()["id"])
    assert (job.task, job.options["num_frames"]) == ("text_to_video", 4)
    assert reply.json()["size"] == "128x128" and reply.json()["status"] == "queued"
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    for reference in (url, {"image_url": url}):
        reply = site.client.post(URL, json={"prompt": PROMPT, "input_reference": reference})
        job = site.store.get(reply.json()["id"])
        assert job.task == "animate" and site.store.delete(job.id)
    files = {"video": video(tmp_path)}
    form = {"prompt": PROMPT, "task": "video_to_video", "strength": "0.5", "model": ""}
    reply = site.client.post(URL, data=form, files=files)
    assert reply.json()["seconds"] is None and reply.json()["size"] == "128x128", reply.text
    assert site.client.post(URL, data={"prompt": PROMPT}).json()["seconds"] == "1"
    # A list would be of the jobs of others.
    reply = site.client.get(URL)
    assert reply.status_code == 403 and "without API keys" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "code", "param", "message"),
    [
        ({}, 400, "prompt", "prompt: Field required"),
        ({"prompt": "x" * 51}, 400, "prompt", "prompt: has 51 characters"),
        ({"prompt": "x" * 30_000}, 400, "prompt", "prompt: is too long"),
        ({"seconds": "0.3"}, 400, "seconds", "seconds: is no whole number of frames at 8 fps"),
        ({"seconds": "4"}, 400, "num_frames", "num_frames: 32 is more than the 20"),
        ({"seconds": "1", "num_frames": "8"}, 400, "seconds", "seconds: does not go with"),
        ({"seconds": "nan"}, 400, "seconds", "seconds: Input should be"),
        ({"size": "720x1280"}, 400, "size", "size: this video would have 128x128"),
        ({"size": "large"}, 400, "size", "size: String should match"),
        ({"quality": "high"}, 400, "quality", "quality: Extra inputs are not permitted"),
        ({"model": "sora"}, 404, "model", "model: is not here"),
        ({"task": "inpaint"}, 400, "video", "video: is missing"),
        ({"input_reference": "http://x/y.png"}, 400, "input_reference", "input_reference: send a"),
        ({"input_reference": "data:image/png;base64,ü"}, 400, "input_reference", "input_refer"),
        ({"input_reference": "data:image/png;base64,eA=="}, 415, "image", "image: is not a supp"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(shared_site, fields, code, param, message):
    whole = {"prompt": PROMPT} | fields if fields else {"steps": "1"}
    for given in ({"json": whole}, {"data": whole}):
        reply = shared_site.client.post(URL, **given)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (code, param), reply.text
        assert error["message"].startswith(message) and error["type"] == "invalid_request_error"
    assert shared_site.store.counts()["queued"] == 0


def test_bodies_that_are_refused(shared_site):
    post, plain = shared_site.client.post, {"content-type": "application/json"}
    for content, code in (
        (b"{", 400), (b"[1]", 400), (b"\xff", 400), (b'{"prompt": NaN}', 400),
        (b"[" * 50_000, 400), (b'{"prompt": "\\ud800"}', 400),
    ):  # fmt: skip
        reply = post(URL, content=content, headers=plain)
        assert reply.status_code == code and reply.json()["error"]["message"], reply.text
    assert post(URL, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    reply = post(URL, content=b"x" * 70_000, headers=plain)
    assert reply.status_code == 413 and reply.json()["error"]["code"] == "request_too_large"
    reply = shared_site.client.get("http://x/v1/nothing")
    assert reply.status_code == 404 and reply.json()["error"]["type"] == "invalid_request_error"


def test_json_is_bounded_though_uploads_may_be_larger(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("lumiere_jax.serving.videos._MOST_JSON", 1000)
    site = Site(bundle, tmp_path)
    reply = site.client.post(URL, json={"prompt": "x" * 1000})
    assert reply.status_code == 413 and "as files, in a form" in reply.json()["error"]["message"]
    site.database.close()


def test_keys(bundle, tmp_path):
    site = Site(bundle, tmp_path, keys=KEYS)
    for method, url in (("POST", URL), ("GET", URL), ("DELETE", f"{URL}/{NOBODY}")):
        reply = site.client.request(method, url)
        assert reply.status_code == 401 and reply.json()["error"]["code"] == "invalid_api_key"
    own, other = ({"authorization": f"Bearer {key}"} for key in KEYS)
    made = site.client.post(URL, json={"prompt": PROMPT}, headers=own).json()
    assert site.client.get(f"{URL}/{made['id']}").json() == made  # its id is what it takes
    reply = site.client.get(URL, headers=own).json()
    assert [video["id"] for video in reply["data"]] == [made["id"]] and not reply["has_more"]
    assert site.client.get(URL, headers=other).json()["data"] == []
    assert site.client.get(URL, params={"after": NOBODY}, headers=own).status_code == 404
    assert site.client.get(URL, params={"limit": 0}, headers=own).status_code == 400
    site.database.close()


def test_one_client_does_not_fill_the_queue(bundle, tmp_path):
    site = Site(bundle, tmp_path, keys=KEYS, queue_per_client=1)
    first, second = ({"x-api-key": key} for key in KEYS)
    assert site.post(headers=first).status_code == 202
    reply = site.post(headers=first)
    assert reply.status_code == 429 and reply.headers["retry-after"]
    assert reply.json()["detail"] == "1 of your jobs are waiting; try again later"
    reply = site.client.post(URL, json={"prompt": PROMPT}, headers=first)
    assert reply.status_code == 429 and reply.json()["error"]["type"] == "rate_limit_error"
    assert site.post(headers=second).status_code == 202
    site.worker.claim()
    assert site.post(headers=first).status_code == 202
    site.database.close()

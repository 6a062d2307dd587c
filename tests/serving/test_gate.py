"""What visitors reach of the page's library, and how the page asks for a key."""

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.testclient import TestClient

from lumiere_jax.serving.page import gate as gates
from lumiere_jax.serving.page import kept as kepts
from lumiere_jax.serving.page.gate import Gate
from lumiere_jax.serving.page.kept import Kept

KEY = "0123456789abcdef"
PAGE = "<script>let a = 1;</script><script src='/assets/x.js'></script><p>page</p>"


def stand_in() -> FastAPI:
    """Answers at every path with what it was sent."""
    app = FastAPI()
    app.state.forgotten = []

    async def forget(session):
        app.state.forgotten.append(session)

    app.state.forget = forget

    @app.get("/gradio_api/queue/data")
    def stream(answers: int = 0):
        news = ["data: 1\n\n", *['data: {"msg":"process_completed"}\n\n'] * answers]
        return StreamingResponse(iter(news), media_type="text/event-stream")

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def echo(path: str, request: Request):
        if not path:
            return HTMLResponse(PAGE)
        return {"path": path, "body": (await request.body()).decode()}

    return app


@pytest.fixture(name="opened")
def fixture_opened(tmp_path):
    """Opens a gate; requests go to a client of it."""
    clients = []

    def opened(build=stand_in, keys=(), max_streams=20, **more):
        kept = Kept(tmp_path / "gradio", 10_000)
        gate = Gate(build, kept, keys, max_streams, **more)
        outer = FastAPI()
        outer.router.lifespan_context = lambda app: gate.loaded()

        @outer.middleware("http")
        async def guard(request, call_next):
            request.state.client = request.headers.get("x-client", "")
            return await call_next(request)

        outer.mount("/", gate)
        client = TestClient(outer, follow_redirects=False)
        clients.append(client)
        client.__enter__()
        while client.get("/").status_code == 503:
            time.sleep(0.1)  # or its questions would take the cores from what loads
        return client

    yield opened
    for client in clients:
        client.__exit__(None, None, None)


def test_only_what_the_page_needs_is_open(opened, tmp_path):
    client = opened()
    file = tmp_path / "gradio" / "x" / "a.png"
    for path in ("/", "/config", "/assets/a.js", f"/gradio_api/file={file}"):
        assert client.get(path).status_code == 200, path
    closed = [
        f"/gradio_api/file={tmp_path}/secret", f"/gradio_api/file={tmp_path}/gradio/../secret",
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1/x", "/monitoring",
        "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/deep_link", "/gradio_api/runs",
        "/gradio_api/call/x/y", "/gradio_api/dev/reload", "/gradio_api/openapi.json",
        "/gradio_api/upload_progress",
    ]  # fmt: skip
    for path in closed:
        assert client.get(path).status_code == 404, path
    for path in ("/", "/gradio_api/vibe-edit", "/gradio_api/process_recording",
                 "/gradio_api/component_server", "/login",
                 "/gradio_api/run/other", "/gradio_api/call/x"):  # fmt: skip
        assert client.post(path, json={}).status_code == 404, path
    assert client.put("/gradio_api/upload", content=b"x").status_code == 404


def test_forms_name_no_addresses_and_are_short(opened):
    client, path = opened(), "/gradio_api/queue/join"
    fine = {"data": [{"path": "/tmp/a.png", "url": "http://host/gradio_api/file=/tmp/a.png"}]}
    assert json.loads(client.post(path, json=fine).json()["body"]) == fine
    for name in ("http://example.org/a.png", "ftp://example.org/a", "https://x"):
        nested = {"data": [[{"a": {"path": name}}]]}
        assert client.post(path, json=nested).status_code == 422
        # However it is written.
        text = json.dumps(nested).replace("path", "p\\u0061th")
        assert client.post(path, content=text).status_code == 422
    for form in ([], "x", {"session_hash": "x" * 65}):
        assert client.post(path, json=form).status_code == 422
    assert client.post(path, content=b"[" * 100_000).status_code == 400
    assert client.post(path, content=b'"' + b"x" * 2**18 + b'"').status_code == 413


def upload(client, *files, visitor="a"):
    named = [("files", file) for file in files]
    return client.post("/gradio_api/upload", files=named, headers={"x-client": visitor})


def test_files_are_kept_by_names_that_nobody_can_guess(opened, tmp_path):
    client = opened()
    reply = upload(client, ("../../ü x.png", b"1"), ("..", b"2"), ("x" * 999, b"3"))
    paths = [Path(path) for path in reply.json()]
    assert [path.name for path in paths] == ["__x.png", "file", "x" * 60]
    assert [path.read_bytes() for path in paths] == [b"1", b"2", b"3"]
    folders = {path.parent for path in paths}
    assert len(folders) == 3 and all(f.parent == tmp_path / "gradio" for f in folders)
    for files in ([("files", ("x", b"1"))] * 11, [("files", (None, b"1"))]):
        assert client.post("/gradio_api/upload", files=files).status_code == 400
    assert client.post("/gradio_api/upload", files={"other": ("x", b"1")}).json() == []
    assert set((tmp_path / "gradio").iterdir()) == folders


def test_one_visitor_does_not_fill_the_disk(opened):
    client = opened()
    for visitor in "abcd":
        codes = [upload(client, ("x", bytes(9700)), visitor=visitor).status_code for _ in range(9)]
        assert codes == [200] * 8 + [429], visitor
    refused = upload(client, ("x", bytes(9700)))
    assert refused.status_code == 429 and "too many of your files" in refused.json()["detail"]
    assert upload(client, ("x", bytes(9700)), visitor="e").status_code == 429


def test_uploads_count_by_what_is_written(opened):
    client, path = opened(), "/gradio_api/upload"
    for _ in range(9):
        announced = {"content-length": "9700"}
        assert client.post(path, content=b"x", headers=announced).json() == []
    # Such a length says nothing.
    headers = {"content-length": "1", "transfer-encoding": "chunked"}
    files = {"files": ("x", bytes(9700))}
    codes = [client.post(path, files=files, headers=headers).status_code for _ in range(9)]
    assert codes == [200] * 8 + [429]


def test_files_are_deleted_and_count_no_more_after_an_hour(tmp_path, monkeypatch):
    (tmp_path / "example").write_bytes(b"x")
    kept = Kept(tmp_path, 1000)
    kept.spare()
    while kept.take("a", 1000):
        path = Path(kept.write(b"x", "x"))
    (tmp_path / "empty").mkdir()
    kept.sweep()
    assert path.exists() and not kept.take("a", 1000) and kept.take("b", 1000)
    for clock in ("time", "monotonic"):
        later = getattr(time, clock)() + 3800
        monkeypatch.setattr(kepts.time, clock, lambda later=later: later)
    kept.sweep()
    assert [left.name for left in tmp_path.iterdir()] == ["example"]
    assert kept.take("a", 1000)


def test_one_visitor_does_not_take_all_streams(opened):
    for most, code in ((1, 200), (0, 429)):
        client = opened(max_streams=most)
        for _ in range(3):  # those that ended count no more
            assert client.get("/gradio_api/queue/data").status_code == code


def test_forms_wait_until_their_news_are_read(opened, monkeypatch):
    monkeypatch.setattr(gates, "_TIDY_SECONDS", 0.05)
    app = stand_in()
    client = opened(lambda: app, max_streams=40)

    def send(session, visitor="a"):
        form, headers = {"session_hash": session}, {"x-client": visitor}
        return client.post("/gradio_api/queue/join", json=form, headers=headers).status_code

    assert [send(session) for session in "xxyyzz"] == [200] * 5 + [429]
    assert send("w", "b") == 200
    client.get("/gradio_api/queue/data", params={"session_hash": "x", "answers": 1})
    assert [send("x"), send("x")] == [200, 429]
    monkeypatch.setattr(gates, "_UNHEARD_SECONDS", 0.0)
    until = time.monotonic() + 200
    while len(app.state.forgotten) < 4:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert sorted(app.state.forgotten) == ["w", "x", "y", "z"]
    assert [send("v") for _ in range(5)] == [200] * 5


def test_scripts_of_the_page_alone_run_in_it(opened):
    policy = opened().get("/").headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    scripts = f"script-src 'self' 'unsafe-eval' 'sha256-{digest}';"
    assert scripts in policy and "default-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    framed = opened(framed_by="https://huggingface.co").get("/").headers
    assert "frame-ancestors https://huggingface.co" in framed["content-security-policy"]


def test_a_key_opens_the_page(opened):
    client = opened(keys=[KEY, "another-key-of-mine"])
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/vibe-code"):
        assert client.get(path).status_code == 404
    for path in ("/config", "/assets/a.js", "/gradio_api/queue/data"):
        assert client.get(path).status_code == 401
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert client.post(path, json={}).status_code == 401
    assert "API key" in client.get("/").text and "page" not in client.get("/").text
    wrong = client.post("/key", data={"key": "<b>wrong"})
    assert (
        wrong.status_code == 401 and "not a key" in wrong.text and "set-cookie" not in wrong.headers
    )
    assert client.post("/key", content=b"key=" + b"x" * 10_000).status_code == 401
    right = client.post("/key", data={"key": f" {KEY} "})
    cookie = right.headers["set-cookie"].lower()
    assert right.status_code == 303 and "httponly" in cookie and "samesite=strict" in cookie
    assert "page" in client.get("/").text
    assert client.post("/gradio_api/queue/join", json={}).status_code == 200


def test_a_page_that_cannot_be_loaded_is_told(tmp_path, caplog):
    def broken():
        raise RuntimeError("no library")

    gate = Gate(broken, Kept(tmp_path, 1), (), 1)
    outer = FastAPI()
    outer.router.lifespan_context = lambda app: gate.loaded()
    outer.mount("/", gate)
    with TestClient(outer) as client:
        while (answer := client.get("/")).status_code == 503:
            assert "being loaded" in answer.text
            time.sleep(0.1)
    assert answer.status_code == 500 and "log says why" in answer.text
    assert "the page cannot be loaded" in caplog.text

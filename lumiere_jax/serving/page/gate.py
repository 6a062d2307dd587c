"""What of Gradio visitors may reach, and with which key; and the page while it loads.

Gradio has more routes than the page needs: some fetch addresses or keep files. All others are
closed. What it keeps of a visitor is bounded: forms, streams, news that nobody reads, and files,
which are not uploaded to Gradio itself since it takes a thousand at once and forgets some.
"""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import html
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio.to_thread
from fastapi import FastAPI
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from lumiere_jax.serving.page.client import KEY
from lumiere_jax.serving.page.kept import Kept
from lumiere_jax.serving.shares import Shares

_FILE = "/gradio_api/file="
_GET = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/queue/data",
        "/gradio_api/startup-events", "/gradio_api/info", "/gradio_api/app_id")  # fmt: skip
_GET_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", _FILE)
_NEWS, _JOIN, _UPLOAD = "/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/upload"
_STREAMS = (_NEWS, "/gradio_api/heartbeat/")
_POST = (_JOIN, "/gradio_api/run/predict", "/gradio_api/cancel", "/gradio_api/reset")
_MAX_JSON = 2**18  # bytes of a form without its files
_MAX_SESSION = 64  # characters of a session's name, of which Gradio keeps many
_MAX_FILES = 10  # of an upload
_UNHEARD_SECONDS = 30.0  # after which a session that waits, but does not listen, is forgotten
_TIDY_SECONDS = 30.0
_ANSWER = b'"process_completed"'  # the last message about a form
_SCRIPT = re.compile(rb"<script[^>]*>(.*?)</script>", re.DOTALL)
_POLICY = (
    # The image editor makes functions of texts; no script in the page itself can be added to it.
    "default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {framers}"
)
_PLAIN = "default-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_DOCUMENT = """<!doctype html><html lang="en"><meta charset="utf-8">{head}
<meta name="viewport" content="width=device-width, initial-scale=1"><title>lumiere_jax</title>
<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 30rem; margin: 4rem auto;
padding: 0 1rem"><h1>lumiere_jax</h1>{body}"""
_RELOAD = '<meta http-equiv="refresh" content="1">'
_FORM = """<form method="post" action="/key"><p><label>API key of this server<br>
<input type="password" name="key" required autofocus size="40"></label>
<button>Open</button></p><p role="alert">{problem}</p></form>"""

_log = logging.getLogger("lumiere_jax.serving")


@dataclasses.dataclass
class _Session:
    """A browser's tab, while forms that it sent are not answered."""

    senders: list[str] = dataclasses.field(default_factory=list)  # of these forms
    streams: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)  # the last sign of life


class Gate:
    """ASGI application: the page behind its checks.

    Args:
      build: makes the page, which takes seconds; called in a thread. Its `state.forget` is to drop
        a session.
      kept: the files of visitors.
      keys: one of them is needed, if there are any.
      max_streams: connections that wait for news, of all visitors; and half as many forms may wait.
      framed_by: origins whose pages may show the page in a frame, separated by spaces; "" for none.
    """

    def __init__(
        self, build: Callable[[], FastAPI], kept: Kept, keys: Collection[str], max_streams: int,
        framed_by: str = "",
    ):  # fmt: skip
        self._build, self._kept, self._keys = build, kept, list(keys)
        self._streams, self._forms = Shares(max_streams), Shares(max_streams // 2)
        self._sessions: dict[str, _Session] = {}
        self._writers = anyio.CapacityLimiter(2)  # uploads that are in memory
        self._framers = framed_by or "'none'"
        self._page: FastAPI | None = None
        self._has_failed = False

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[None]:
        """Loads the page while the body runs, and ends it afterwards."""
        ending = asyncio.Event()
        loading = asyncio.create_task(self._load(ending))
        try:
            yield
        finally:
            ending.set()
            await loading

    async def _load(self, ending: asyncio.Event) -> None:
        begin = time.monotonic()
        try:
            page = await anyio.to_thread.run_sync(self._build)
            async with page.router.lifespan_context(page):
                self._page = page
                _log.info("the page was loaded in %.1f s", time.monotonic() - begin)
                while not ending.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(ending.wait(), _TIDY_SECONDS)
                    await self._tidy(page)
        except Exception:
            self._has_failed = True
            _log.exception("the page cannot be loaded; the HTTP interface does not need it")

    async def _tidy(self, page: FastAPI) -> None:
        try:
            await self._forget_silent(page)
            await anyio.to_thread.run_sync(self._kept.sweep)
        except Exception:
            _log.exception("tidying up failed; it is tried again")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        answer = await self._own_answer(request)
        if answer is not None:
            await answer(scope, receive, send)
        elif request.url.path == _UPLOAD:
            await (await self._take_files(request))(scope, receive, send)
        elif request.url.path in _POST:
            await self._pass_json(request, send)
        elif request.url.path.startswith(_STREAMS):
            await self._pass_stream(request, send)
        elif request.url.path == "/":
            await self._pass_document(scope, receive, send)
        else:
            assert self._page is not None
            await self._page(scope, receive, send)

    async def _own_answer(self, request: Request) -> Response | None:
        """The answer where Gradio is not asked."""
        path, method = request.url.path, request.method
        if path == "/key" and method == "POST" and self._keys:
            return await self._take_key(request)
        if not self._is_open(path, method):
            raise HTTPException(404, "there is nothing here")
        if not self._has_key(request.cookies.get(KEY, "")):
            is_page = path == "/"
            return _ask_for_key() if is_page else _problem(401, "an API key is missing")
        if self._has_failed:
            return _document("<p>The page cannot be loaded; the server's log says why.</p>", 500)
        if self._page is None:
            return _document("<p>The page is being loaded …</p>", 503, head=_RELOAD)
        return None

    def _is_open(self, path: str, method: str) -> bool:
        if method == "POST":
            return path in (*_POST, _UPLOAD)
        if path.startswith(_FILE):
            place = Path("/" + path.removeprefix(_FILE).lstrip("/")).resolve()
            return method == "GET" and place.is_relative_to(self._kept.folder)
        return method == "GET" and (path in _GET or path.startswith(_GET_BELOW))

    # --- Files ---------------------------------------------------------------------------------

    async def _take_files(self, request: Request) -> Response:
        size = self._kept.max_upload
        if "transfer-encoding" not in request.headers:  # with it, a length says nothing
            size = int(request.headers.get("content-length", size))
        share = self._kept.take(_client(request), size)
        if share is None:
            return _problem(429, "too many of your files are kept now; try again later")
        paths, written = [], 0
        try:
            async with request.form(max_files=_MAX_FILES, max_fields=0) as form:
                for file in form.getlist("files"):
                    if isinstance(file, UploadFile):
                        paths.append(await self._keep(file))
                        written += file.size or 0
        finally:
            self._kept.settle(share, written)
        return JSONResponse(paths)

    async def _keep(self, file: UploadFile) -> str:
        name = Path(file.filename or "").name
        async with self._writers:
            return await anyio.to_thread.run_sync(self._kept.write, await file.read(), name)

    # --- Keys ----------------------------------------------------------------------------------

    def _has_key(self, given: str) -> bool:
        # All keys are compared, each in constant time, so that the time reveals nothing.
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in self._keys]
        return not self._keys or any(matches)

    async def _take_key(self, request: Request) -> Response:
        key = parse_qs((await _body(request, 4096)).decode("utf-8", "replace")).get("key", [""])[0]
        if not self._has_key(key.strip()):
            return _ask_for_key("This is not a key of this server.", 401)
        answer = RedirectResponse("/", 303)
        is_secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        answer.set_cookie(
            KEY, key.strip(), max_age=30 * 86400, httponly=True, samesite="strict", secure=is_secure
        )
        return answer

    # --- What Gradio is asked ------------------------------------------------------------------

    async def _pass_json(self, request: Request, send: Send) -> None:
        assert self._page is not None
        body = await _body(request, _MAX_JSON)
        problem = None
        try:
            if len(body) > _MAX_JSON:
                problem = _problem(413, "the form is too large")
            elif _has_address(form := json.loads(body)):
                problem = _problem(422, "files are uploaded; the server fetches none")
            elif not isinstance(form, dict) or len(str(form.get("session_hash"))) > _MAX_SESSION:
                problem = _problem(422, "this is no form of a session")
            elif request.url.path == _JOIN and not self._may_wait(request, form):
                problem = _problem(429, "too many of your forms wait now; try again later")
        except (ValueError, RecursionError):
            problem = _problem(400, "this is no JSON")
        if problem is not None:
            await problem(request.scope, request.receive, send)
            return

        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                return await request.receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_answer(message: Message) -> None:
            if message.get("status", 200) >= 400 and request.url.path == _JOIN:
                self._answered(str(form.get("session_hash")))
            await send(message)

        await self._page(request.scope, receive, send_answer)

    def _may_wait(self, request: Request, form: dict[str, Any]) -> bool:
        """Whether a visitor may have one more form that is not answered."""
        if not self._forms.take(client := _client(request)):
            return False
        session = self._sessions.setdefault(str(form.get("session_hash")), _Session())
        session.senders.append(client)
        session.since = time.monotonic()
        return True

    def _answered(self, name: str) -> None:
        session = self._sessions.get(name)
        if session and session.senders:
            self._forms.give(session.senders.pop())

    async def _forget_silent(self, page: FastAPI) -> None:
        for name, session in list(self._sessions.items()):
            if not session.streams and time.monotonic() - session.since > _UNHEARD_SECONDS:
                del self._sessions[name]
                for client in session.senders:
                    self._forms.give(client)
                await page.state.forget(name)

    async def _pass_stream(self, request: Request, send: Send) -> None:
        assert self._page is not None
        client, name = _client(request), request.query_params.get("session_hash", "")
        if not self._streams.take(client):
            problem = _problem(429, "too many visitors wait for news now")
            await problem(request.scope, request.receive, send)
            return
        session = self._sessions.setdefault(name, _Session())
        session.streams += 1

        async def send_news(message: Message) -> None:
            await send(message)
            for _ in range(message.get("body", b"").count(_ANSWER)):
                self._answered(name)

        try:
            await self._page(request.scope, request.receive, send_news)
        except RuntimeError:  # Gradio has told the browser that it does not know the session
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._streams.give(client)
            session.streams -= 1
            session.since = time.monotonic()
            if not session.streams and not session.senders:
                self._sessions.pop(name, None)

    async def _pass_document(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page itself, with a policy that lets the scripts in it run, and no others."""
        assert self._page is not None
        headers = [(n, v) for n, v in scope["headers"] if n != b"accept-encoding"]
        start: Message = {}
        content = b""

        async def collect(message: Message) -> None:
            nonlocal start, content
            start = message if message["type"] == "http.response.start" else start
            content += message.get("body", b"")

        await self._page({**scope, "headers": headers}, receive, collect)
        digests = [hashlib.sha256(script).digest() for script in _SCRIPT.findall(content) if script]
        scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        policy = _POLICY.format(scripts=scripts, framers=self._framers).encode()
        start["headers"] = [*start["headers"], (b"content-security-policy", policy)]
        await send(start)
        await send({"type": "http.response.body", "body": content})


def _client(request: Request) -> str:
    """Whose request it is, as `Guard` says."""
    return getattr(request.state, "client", "")


def _has_address(value: Any) -> bool:
    """Whether a form names a file by an address, which Gradio would fetch."""
    if isinstance(value, list):
        return any(map(_has_address, value))
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    is_address = isinstance(path, str) and "://" in path
    return is_address or any(map(_has_address, value.values()))


async def _body(request: Request, most: int) -> bytes:
    """The body, or a little more of it than is allowed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            break
    return body


def _problem(code: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, code)


def _ask_for_key(problem: str = "", code: int = 200) -> HTMLResponse:
    return _document(_FORM.format(problem=html.escape(problem)), code)


def _document(body: str, code: int, head: str = "") -> HTMLResponse:
    headers = {"Content-Security-Policy": _PLAIN}
    return HTMLResponse(_DOCUMENT.format(head=head, body=body), code, headers)

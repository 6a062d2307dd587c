"""What of Gradio visitors may reach, and with which key; and the page while it loads.

Gradio has more routes than the page needs: some fetch addresses or keep files. All others are
closed, bodies are bounded, and what lies on the disk is.
"""

import asyncio
import base64
import contextlib
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
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from lumiere_jax.serving.page.client import KEY

_FILE = "/gradio_api/file="
_GET = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/queue/data",
        "/gradio_api/upload_progress", "/gradio_api/startup-events", "/gradio_api/info",
        "/gradio_api/app_id")  # fmt: skip
_GET_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", _FILE)
_STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/upload_progress")
_UPLOAD = "/gradio_api/upload"
_POST = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel",
         "/gradio_api/reset")  # fmt: skip
_MAX_JSON = 2**18  # bytes of a form without its files
_MAX_SESSION = 64  # characters of a session's name, of which Gradio keeps many
_MAX_KEPT = 32  # uploads of the largest size that the disk holds at a time
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


class Gate:
    """ASGI application: the page behind its checks.

    Args:
      build: makes the page, which takes seconds; called in a thread.
      folder: where Gradio keeps files.
      keys: one of them is needed, if there are any.
      max_bytes: of an upload.
      max_streams: connections that wait for news, of all visitors.
      framed_by: origins whose pages may show the page in a frame, separated by spaces; "" for none.
    """

    def __init__(
        self, build: Callable[[], FastAPI], folder: Path, keys: Collection[str], max_bytes: int,
        max_streams: int, framed_by: str = "",
    ):  # fmt: skip
        self._build, self._folder, self._keys = build, folder.resolve(), list(keys)
        self._max_bytes, self._max_streams, self._streams = max_bytes, max_streams, 0
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
                await ending.wait()
        except Exception:
            self._has_failed = True
            _log.exception("the page cannot be loaded; the HTTP interface does not need it")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        answer = await self._own_answer(request)
        if answer is not None:
            await answer(scope, receive, send)
        elif request.url.path in _POST:
            await self._pass_json(request, send)
        elif request.url.path.startswith(_STREAMS):
            await self._pass_stream(scope, receive, send)
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
        if path == _UPLOAD and await anyio.to_thread.run_sync(self._is_full):
            return _problem(429, "too many files are kept now; try again later")
        return None

    def _is_open(self, path: str, method: str) -> bool:
        if method == "POST":
            return path in (*_POST, _UPLOAD)
        if path.startswith(_FILE):
            place = Path("/" + path.removeprefix(_FILE).lstrip("/")).resolve()
            return method == "GET" and place.is_relative_to(self._folder)
        return method == "GET" and (path in _GET or path.startswith(_GET_BELOW))

    def _is_full(self) -> bool:
        return sum(map(_size, self._folder.rglob("*"))) > _MAX_KEPT * self._max_bytes

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

        await self._page(request.scope, receive, send)

    async def _pass_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._page is not None
        if self._streams >= self._max_streams:
            await _problem(429, "too many visitors wait for news now")(scope, receive, send)
            return
        self._streams += 1
        try:
            await self._page(scope, receive, send)
        finally:
            self._streams -= 1

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


def _size(path: Path) -> int:
    """Bytes of a file; none of a folder, or of a file that was deleted just now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


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

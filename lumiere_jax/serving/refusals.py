"""Answers that refuse a request, in the shape that clients of its interface read."""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException  # FastAPI raises it, and none of its own

from lumiere_jax.serving.queue import QueueError

_RETRY_SECONDS = 15
_UNIFORM = "/v1/"  # where paths begin whose clients know OpenAI's errors
_FIELD = re.compile(r"(\w+)[:=]")

_log = logging.getLogger("lumiere_jax.serving")

Kind = Literal["invalid_request_error", "authentication_error", "rate_limit_error", "server_error"]
_KINDS: dict[int, Kind] = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_request", 401: "invalid_api_key", 403: "forbidden", 404: "not_found",
    405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type",
    429: "rate_limit_exceeded",
}  # fmt: skip


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class VideoError(BaseModel):
    """Why a request was refused, or a video was not made."""

    message: str
    code: str
    type: Kind = "invalid_request_error"
    param: str | None = Field(None, description="The field that is wrong.")


class VideoProblem(BaseModel):
    """The answer to a request that was refused."""

    error: VideoError


def refuse(
    path: str, code: int, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that says why, for a request to a path."""
    if not path.startswith(_UNIFORM):
        return JSONResponse({"detail": detail}, code, headers)
    code = 400 if code == 422 else code
    kind = _KINDS.get(code, "invalid_request_error" if code < 500 else "server_error")
    field = _FIELD.match(detail) if code < 500 else None
    error = VideoError(
        message=detail, type=kind, param=field[1] if field else None,
        code=_CODES.get(code, "server_error"),
    )  # fmt: skip
    return JSONResponse(VideoProblem(error=error).model_dump(), code, headers)


def later(detail: str) -> HTTPException:
    """For a request that may be sent again."""
    return HTTPException(429, detail, {"Retry-After": str(_RETRY_SECONDS)})


def no_such_job() -> HTTPException:
    """For an id that means nothing."""
    return HTTPException(404, "there is no such job; finished jobs are deleted after some time")


async def _tell_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """One sentence per mistake, in place of FastAPI's list."""
    sentences = []
    for mistake in error.errors()[:5]:
        place = ".".join(str(part) for part in mistake["loc"][1:]) or str(mistake["loc"][0])
        sentences.append(f"{place}: {mistake['msg']}")
    detail = "; ".join(dict.fromkeys(sentences))  # a dependency and its route report the same
    return refuse(request.url.path, 422, detail[:1000])


def _unavailable(request: Request, detail: str) -> JSONResponse:
    return refuse(request.url.path, 503, detail, {"Retry-After": str(_RETRY_SECONDS)})


async def _tell_unreachable(request: Request, error: QueueError) -> JSONResponse:
    _log.error("the database: %s", error)
    return _unavailable(request, "the database of jobs cannot be reached; try again later")


async def _tell_full(request: Request, error: OSError) -> JSONResponse:
    _log.error("a file cannot be written or read: %s", error)
    return _unavailable(request, "the server cannot store files now; try again later")


async def _tell_refused(request: Request, error: HTTPException) -> JSONResponse:
    """As FastAPI does; but FastAPI takes a full disk for a mistake in the body."""
    if error.status_code == 400 and isinstance(error.__cause__, OSError):
        return await _tell_full(request, error.__cause__)
    return refuse(request.url.path, error.status_code, error.detail, error.headers)


async def _tell_defect(request: Request, error: Exception) -> JSONResponse:
    """A defect of the server: it is in the log, and the client must not see it."""
    return refuse(request.url.path, 500, "something went wrong in the server; its log has more")


HANDLERS: dict[type[Exception], Callable[..., Any]] = {
    RequestValidationError: _tell_invalid,
    QueueError: _tell_unreachable,
    OSError: _tell_full,
    HTTPException: _tell_refused,
    Exception: _tell_defect,
}
"""What is answered to each kind of error."""

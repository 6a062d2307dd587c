"""Serves the study, and takes the answers."""

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from lumiere_jax.metrics.user_study import Study, left_video, right_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page import page
from lumiere_jax.study_page.folder import VIDEOS
from lumiere_jax.study_page.store import Store

try:
    import uvicorn  # noqa: F401  runs it
    from fastapi import Body, FastAPI, HTTPException, Request, Response
    from fastapi.responses import HTMLResponse
    from fastapi.staticfiles import StaticFiles
except ImportError as _error:
    raise UserError(
        f"serving a study needs {_error.name}: install the extra, pip install 'lumiere_jax[study]'"
    ) from _error

_COOKIE_SECONDS = 365 * 24 * 3600
_VIDEO_CACHE_SECONDS = 24 * 3600
_MOST_BYTES = 2**16  # of an answer
_GET = ["GET", "HEAD"]


def make_app(study: Study, folder: Path, store: Store) -> FastAPI:
    """The application.

    Routes: `/` is the page; `/api/raters/RATER` gives (GET) or begins (PUT) a rater's work;
    `/api/raters/RATER/answers` takes (PUT) one answer; `/api/rater` names the rater of the cookie.
    """
    app = FastAPI(openapi_url=None, max_body_size=_MOST_BYTES)
    views = _Views(study, store)
    for path, methods, view in (
        ("/", _GET, views.show_page),
        ("/api/rater", _GET, views.tell_rater),
        ("/api/raters/{rater}", _GET, views.tell_work),
        ("/api/raters/{rater}", ["PUT"], views.begin),
        ("/api/raters/{rater}/answers", ["PUT"], views.take_answer),
    ):
        app.add_api_route(path, view, methods=methods)
    for name, files in (("assets", page.ASSETS), (VIDEOS, folder / VIDEOS)):
        app.mount(f"/{name}", StaticFiles(directory=files, follow_symlink=True))
    app.middleware("http")(_keep_fresh)
    return app


async def _keep_fresh(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Lets browsers keep videos, and nothing else."""
    reply = await answer(request)
    is_video = request.url.path.startswith(f"/{VIDEOS}/") and reply.status_code < 400
    kept = f"public, max-age={_VIDEO_CACHE_SECONDS}" if is_video else "no-cache"
    reply.headers["Cache-Control"] = kept
    return reply


@dataclasses.dataclass
class _Views:
    """What the server replies."""

    _study: Study
    _store: Store

    def __post_init__(self) -> None:
        self._cookie = f"rater_{self._study.key}"  # two studies on one host share their cookies
        self._page = page.render(self._study, mode="served")

    def show_page(self) -> HTMLResponse:
        return HTMLResponse(self._page)

    def tell_rater(self, request: Request) -> dict[str, str | None]:
        return {"rater": request.cookies.get(self._cookie)}

    def tell_work(self, rater: str, response: Response) -> dict[str, Any]:
        """The pairs and answers of a rater who has begun."""
        pairs = self._store.assigned(rater)
        if not pairs:
            raise HTTPException(404, "no such rater")
        answers: dict[str, dict[str, str]] = {}
        for judgement in self._store.judgements(rater):
            answers.setdefault(judgement.pair, {})[judgement.question] = judgement.chosen
        items = [
            {
                "key": pair.key,
                "prompt": pair.prompt,
                "left": left_video(self._study, rater, pair),
                "right": right_video(self._study, rater, pair),
            }
            for pair in pairs
        ]
        response.set_cookie(self._cookie, rater, max_age=_COOKIE_SECONDS, samesite="lax")
        return {"items": items, "answers": answers}

    def begin(self, rater: str, response: Response) -> dict[str, Any]:
        if not page.RATER_PATTERN.fullmatch(rater):
            raise HTTPException(400, "a rater is named by up to 64 letters, digits, - and _")
        self._store.register(rater)
        return self.tell_work(rater, response)

    def take_answer(self, rater: str, fields: Annotated[Any, Body()] = None) -> dict[str, bool]:
        if not isinstance(fields, dict) or fields.get("study") != self._study.key:
            raise HTTPException(409, "the page is of another study; load it again")
        pair, question = self._study.pair(str(fields.get("pair"))), fields.get("question")
        if pair is None or question not in [known.name for known in self._study.questions]:
            raise HTTPException(400, "no such pair or question")
        if fields.get("chosen") not in pair.videos:
            raise HTTPException(400, "no such video in this pair")
        if not self._store.answer(rater, pair, question, fields["chosen"]):
            raise HTTPException(404, "the rater does not have this pair")
        return {"stored": True}

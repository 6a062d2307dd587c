"""Serves the study, and takes the answers."""

import socket
from pathlib import Path
from typing import Any

from lumiere_jax.metrics.user_study import Study, left_video, right_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page import page
from lumiere_jax.study_page.folder import VIDEOS
from lumiere_jax.study_page.store import Store

try:
    import flask
    import waitress
except ImportError as _error:
    raise UserError(
        f"serving a study needs {_error.name}: install the extra, pip install 'lumiere_jax[study]'"
    ) from _error

_COOKIE_SECONDS = 365 * 24 * 3600
_VIDEO_CACHE_SECONDS = 24 * 3600
_THREADS = 8


def make_app(study: Study, folder: Path, store: Store) -> flask.Flask:
    """The Flask application.

    Routes: `/` is the page; `/api/raters/RATER` gives (GET) or begins (PUT) a rater's work;
    `/api/raters/RATER/answers` takes (PUT) one answer; `/api/rater` names the rater of the cookie.
    """
    app = flask.Flask(__name__, static_folder=str(page.ASSETS), static_url_path="/assets")
    app.config["MAX_CONTENT_LENGTH"] = 2**16
    views = _Views(study, (folder / VIDEOS).resolve(), store)
    for rule, method, view in (
        ("/", "GET", views.show_page),
        (f"/{VIDEOS}/<name>", "GET", views.show_video),
        ("/api/rater", "GET", views.tell_rater),
        ("/api/raters/<rater>", "GET", views.tell_work),
        ("/api/raters/<rater>", "PUT", views.begin),
        ("/api/raters/<rater>/answers", "PUT", views.take_answer),
    ):
        app.add_url_rule(rule, view.__name__, view, methods=[method])
    app.after_request(views.keep_fresh)
    return app


class _Views:
    """What the server replies."""

    def __init__(self, study: Study, videos: Path, store: Store):
        self._study, self._videos, self._store = study, videos, store
        self._cookie = f"rater_{study.key}"  # two studies on one host share their cookies
        self._page = page.render(study, mode="served")

    def show_page(self) -> Any:
        return self._page

    def show_video(self, name: str) -> Any:
        # Conditional: Safari plays no video from a server that does not answer to Range.
        return flask.send_from_directory(
            self._videos, name, conditional=True, max_age=_VIDEO_CACHE_SECONDS
        )

    def tell_rater(self) -> Any:
        return flask.jsonify(rater=flask.request.cookies.get(self._cookie))

    def tell_work(self, rater: str) -> Any:
        """The pairs and answers of a rater who has begun."""
        pairs = self._store.assigned(rater)
        if not pairs:
            return self._refuse(404, "no such rater")
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
        reply = flask.jsonify(items=items, answers=answers)
        reply.set_cookie(self._cookie, rater, max_age=_COOKIE_SECONDS, samesite="Lax")
        return reply

    def begin(self, rater: str) -> Any:
        if not page.RATER_PATTERN.fullmatch(rater):
            return self._refuse(400, "a rater is named by up to 64 letters, digits, - and _")
        self._store.register(rater)
        return self.tell_work(rater)

    def take_answer(self, rater: str) -> Any:
        fields = flask.request.get_json(silent=True)
        if not isinstance(fields, dict) or fields.get("study") != self._study.key:
            return self._refuse(409, "the page is of another study; load it again")
        pair, question = self._study.pair(str(fields.get("pair"))), fields.get("question")
        if pair is None or question not in [known.name for known in self._study.questions]:
            return self._refuse(400, "no such pair or question")
        if fields.get("chosen") not in pair.videos:
            return self._refuse(400, "no such video in this pair")
        if not self._store.answer(rater, pair, question, fields["chosen"]):
            return self._refuse(404, "the rater does not have this pair")
        return flask.jsonify(stored=True)

    def keep_fresh(self, reply: Any) -> Any:
        """Lets browsers keep videos, and nothing else."""
        if not flask.request.path.startswith(f"/{VIDEOS}/"):
            reply.headers["Cache-Control"] = "no-cache"
        return reply

    def _refuse(self, code: int, reason: str) -> Any:
        return flask.jsonify(error=reason), code


def make_server(app: Any, host: str, port: int) -> Any:
    """A waitress server; `run()` serves at `effective_port`. A `UserError` if it cannot listen."""
    try:
        return waitress.create_server(app, host=host, port=port, threads=_THREADS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot serve at {host}:{port} ({reason}); give another --port or --host"
        ) from error


def address(host: str, port: int) -> str:
    """Where a browser finds the server."""
    if host in ("0.0.0.0", "::", "*"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

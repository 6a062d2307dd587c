"""The server's interface and the store of answers."""

import json
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from lumiere_jax.metrics.user_study import arrange, left_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page.folder import ANSWERS_FILE
from lumiere_jax.study_page.store import Store
from tests.study_page.videos import abstract_study


def put(url: str, fields: object = None) -> tuple[int, dict]:
    """Status and content of the reply."""
    request = urllib.request.Request(url, data=json.dumps(fields).encode(), method="PUT")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            is_json = error.headers["Content-Type"] == "application/json"
            return error.code, json.load(error) if is_json else {}


def test_eight_raters_at_once_who_send_everything_twice(served):
    def rate(number: int) -> None:
        rater = f"{served.url}api/raters/r{number}"
        assert [put(rater)[0] for _ in range(2)] == [200, 200]
        for pair in arrange(served.study, f"r{number}"):
            for question in served.study.questions:
                fields = {"study": served.study.key, "pair": pair.key, "chosen": pair.ours}
                fields["question"] = question.name
                assert [put(rater + "/answers", fields)[0] for _ in range(2)] == [200, 200]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rate, range(8)))
    assert len(served.answers()) == 8 * 3 * 3
    with sqlite3.connect(served.store.path) as connection:
        assert connection.execute("SELECT count(*) FROM history").fetchone() == (72,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_cannot_be_an_answer_is_refused(served):
    pair = served.study.pairs[0]
    good = {"study": served.study.key, "pair": pair.key, "question": "text", "chosen": pair.ours}
    answers = served.url + "api/raters/r/answers"
    assert put(answers, good)[0] == 404  # not begun
    assert put(served.url + "api/raters/r%20r")[0] == 400
    assert put(served.url + "api/raters/r")[0] == 200
    for field, value, code in (
        ("study", "0" * 16, 409),
        ("pair", "p", 400),
        ("pair", ["p"], 400),
        ("question", "taste", 400),
        ("chosen", "../study.json", 400),
        ("chosen", None, 400),
    ):
        assert put(answers, good | {field: value})[0] == code
    assert put(answers, ["no", "object"])[0] == 409
    assert served.answers() == {}
    assert put(answers, good) == (200, {"stored": True})
    assert served.answers() == {("r", pair.key, "text"): pair.ours}


def test_videos_are_served_in_ranges_and_nothing_else_is(served):
    video = served.study.pairs[0].ours
    content = (served.folder / "videos" / video).read_bytes()
    request = urllib.request.Request(f"{served.url}videos/{video}", headers={"Range": "bytes=5-9"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 206 and reply.read() == content[5:10]
        assert reply.headers["Content-Type"] == "video/mp4"
        assert reply.headers["Content-Range"] == f"bytes 5-9/{len(content)}"
    for path in (
        "videos/../study.json",
        "videos/%2e%2e/study.json",
        "study.json",
        "answers.sqlite",
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(served.url + path, timeout=60)
        caught.value.close()
        assert caught.value.code == 404


def test_what_browsers_keep_and_how_much_they_may_send(served):
    def head(path: str) -> tuple[str, int]:
        request = urllib.request.Request(served.url + path, method="HEAD")
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.headers["Cache-Control"], int(reply.headers["Content-Length"])

    video = f"videos/{served.study.pairs[0].ours}"
    assert head(video) == ("public, max-age=86400", (served.folder / video).stat().st_size)
    assert [head(path)[0] for path in ("", "api/rater", "assets/study.js")] == ["no-cache"] * 3
    put(served.url + "api/raters/r")
    assert put(served.url + "api/raters/r/answers", {"pair": "x" * 2**16})[0] == 413


def test_a_later_answer_replaces_the_earlier_and_history_keeps_both(tmp_path):
    study = abstract_study()
    store = Store(tmp_path / ANSWERS_FILE, study)
    store.register("r")
    pair = study.pairs[0]
    for chosen in (pair.ours, pair.ours, pair.other):
        assert store.answer("r", pair, "text", chosen)
    (judgement,) = store.judgements()
    assert judgement.chosen == pair.other
    assert judgement.left == left_video(study, "r", pair)
    with sqlite3.connect(store.path) as connection:
        history = connection.execute("SELECT chosen FROM history ORDER BY rowid").fetchall()
    connection.close()
    assert history == [(pair.ours,), (pair.other,)]


def test_the_order_of_a_rater_stays_though_others_answer(tmp_path):
    study = abstract_study(num_pairs=6, pairs_per_rater=3)
    store = Store(tmp_path / ANSWERS_FILE, study)
    store.register("first")
    order = store.assigned("first")
    for number in range(5):
        store.register(f"r{number}")
    again = Store(tmp_path / ANSWERS_FILE, study)
    again.register("first")
    assert again.assigned("first") == order
    assert again.assigned("nobody") == []


def test_judgements_are_even_over_pairs_though_raters_come_at_once(tmp_path):
    study = abstract_study(num_pairs=6, num_checks=0, pairs_per_rater=2)
    store = Store(tmp_path / ANSWERS_FILE, study)
    threads = [threading.Thread(target=store.register, args=(f"r{i}",)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [pair.key for i in range(9) for pair in store.assigned(f"r{i}")]
    assert {given.count(pair.key) for pair in study.pairs} == {3}


def test_pairs_of_raters_who_left_are_given_again(tmp_path, monkeypatch):
    study = abstract_study(num_pairs=2, num_checks=0, pairs_per_rater=1)
    store = Store(tmp_path / ANSWERS_FILE, study)
    monkeypatch.setattr("lumiere_jax.study_page.store._now", lambda: 0)
    store.register("gone")
    store.register("stayed")
    (judged,) = store.assigned("stayed")
    store.answer("stayed", judged, "text", judged.ours)
    monkeypatch.undo()
    store.register("new")
    assert store.assigned("new") == store.assigned("gone") != [judged]


@pytest.mark.parametrize("kind", ["text", "other database", "damaged", "other study", "folder"])
def test_a_file_that_is_not_ours_is_told_and_left_alone(tmp_path, kind):
    path = tmp_path / ANSWERS_FILE
    if kind == "text":
        path.write_text("no database" * 100)
    elif kind == "other database":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE songs (name TEXT)")
        connection.close()
    elif kind == "folder":
        path.mkdir()
    else:
        store = Store(path, abstract_study())
        store.register("r")
        if kind == "damaged":
            content = bytearray(path.read_bytes())
            content[4096:] = b"\xff" * (len(content) - 4096)
            path.write_bytes(content)
    before = None if kind == "folder" else path.read_bytes()
    study = abstract_study(seed=9 if kind == "other study" else 3)
    reason = {
        "text": "damaged or not a file of answers",
        "other database": "not one of answers",
        "damaged": "damaged",
        "other study": "another study",
        "folder": "cannot be opened",
    }
    with pytest.raises(UserError, match=reason[kind]):
        Store(path, study)
    assert before is None or path.read_bytes() == before


def test_missing_packages_are_told_with_the_extra():
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from lumiere_jax.study_page import server\n"
        "server.make_app(None, None, None)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1 and "lumiere_jax[study]" in process.stderr

"""The study as static files, in a real browser, and its files of answers."""

import functools
import http.server
import json
import threading

import pytest
from playwright.sync_api import expect

from lumiere_jax.metrics.user_study import arrange, left_video, merge, right_video, summarize
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.study_page import answers_file
from lumiere_jax.study_page.page import export
from tests.study_page.rating import at, begin, chosen, expect_pressed, steps
from tests.study_page.videos import abstract_study, make_study


def rate(page, side: str, num_pairs: int = 3) -> list[tuple[str, str]]:
    """Answers everything; the prompt and the video on that side at each step."""
    seen = []
    for step in steps(num_pairs):
        at(page, step)
        seen.append(chosen(page, side))
        page.locator(f"#{side}").click()
    at(page, "done")
    return seen


def test_answered_from_the_file_system_and_merged(tmp_path, open_page):
    folder, study = make_study(tmp_path)
    path = export(study, folder)
    page = open_page(path.as_uri())
    begin(page)
    page.keyboard.press("1")
    at(page, "1.2")
    page.reload()
    at(page, "1.2")
    page.go_back()
    at(page, "1.1")
    expect_pressed(page, "left")
    seen = rate(page, "right")
    with page.expect_download() as download:
        page.locator("#download").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    judgements = answers_file.read(file, study)
    assert len(judgements) == 9  # the answer that was changed counts once
    rater = judgements[0].rater
    # The page drew the same order and sides as Python does.
    pairs = arrange(study, rater)
    assert seen == [
        (pairs[i // 3].prompt, right_video(study, rater, pairs[i // 3])) for i in range(9)
    ]
    assert [(j.left, j.chosen) for j in judgements] == [
        (
            left_video(study, rater, study.pair(j.pair)),
            right_video(study, rater, study.pair(j.pair)),
        )
        for j in judgements
    ]
    content = path.read_text()
    assert "theirs" not in content and '"ours"' not in content


def test_sent_to_an_address_and_again_after_a_failure(tmp_path, open_page):
    received = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(body)
            self.send_response(500 if len(received) == 1 else 204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    folder, study = make_study(tmp_path, num_checks=0, pairs_per_rater=1)
    path = export(study, folder, post_url="collect")
    handler = functools.partial(Handler, directory=str(path.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = open_page(f"http://127.0.0.1:{server.server_port}/?rater=panel-7")
        begin(page)
        rate(page, "left", num_pairs=1)
        expect(page.locator("#done-text")).to_contain_text("could not be sent")
        page.locator("#send").click()
        expect(page.locator("#done-text")).to_contain_text("were sent")
        server.shutdown()
    assert received[0] == received[1]
    file = tmp_path / "answers.json"
    file.write_bytes(received[1])
    assert {j.rater for j in answers_file.read(file, study)} == {"panel-7"}


def test_the_page_draws_as_python_does(tmp_path, open_page):
    folder, study = make_study(tmp_path)
    page = open_page(export(study, folder).as_uri())
    for num_pairs, num_checks, limit in ((9, 4, None), (7, 0, 3), (2, 5, 1)):
        study = abstract_study(num_pairs, num_checks, pairs_per_rater=limit, seed=2**40 + 1)
        pairs = [{"key": p.key, "everyRater": p.is_check} for p in study.pairs]
        known = {"pairs": pairs, "seed": study.seed, "pairsPerRater": limit}
        for rater in ("a", "0123456789abcdef", "Zoë", "x" * 64):
            found = page.evaluate(
                "([data, rater]) => arrange(data, rater).map(pair => pair.key)", [known, rater]
            )
            assert found == [pair.key for pair in arrange(study, rater)]


def write_answers(path, study, owner="r", /, at=5, **changes):
    """A file of answers that are all for this model."""
    answers = [
        {"pair": pair.key, "question": question.name, "chosen": pair.ours, "answered_at": at}
        | {"left": left_video(study, owner, pair)}
        for pair in study.pairs
        for question in study.questions
    ]
    head = {"format": answers_file.FORMAT, "study": study.key, "rater": owner, "answers": answers}
    path.write_text(json.dumps(head | changes))
    return path


def test_files_and_folders_of_answers_are_merged(tmp_path):
    study = abstract_study(num_pairs=2, num_checks=1)
    (tmp_path / "many").mkdir()
    write_answers(tmp_path / "many" / "a.json", study, "r1")
    write_answers(tmp_path / "many" / "b.json", study, "r2")
    again = write_answers(tmp_path / "again.json", study, "r1", at=9)
    (tmp_path / "many" / "._copied.json").write_bytes(b"\0")  # of macOS, nobody's answers
    judgements = merge(answers_file.read_all([tmp_path / "many", again], study))
    assert len(judgements) == 2 * 3 * 3
    quality = summarize(study, judgements)["results"][0]["kept"]
    assert (quality["ours"], quality["baseline"], quality["raters"]) == (4, 0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "holiday"}, "not a file of answers"),
        ({"study": "0" * 16}, "another study"),
        ({"rater": "a b"}, "names no rater"),
        ({"answers": 3}, "no list of answers"),
        ({"answers": ["left"]}, "an answer is 'left'"),
        ({"answers": [{"pair": "p9"}]}, "no such pair"),
        ({"rater": "someone-else"}, "no such videos or sides"),
    ],
)
def test_files_that_are_not_answers_of_this_study(tmp_path, changes, message):
    study = abstract_study(num_pairs=8)
    path = write_answers(tmp_path / "answers.json", study, **changes)
    with pytest.raises(UserError, match=message):
        answers_file.read(path, study)


def test_files_that_cannot_be_read(tmp_path):
    study = abstract_study()
    (tmp_path / "half.json").write_text('{"format": ')
    for name in ("half.json", "none.json"):
        with pytest.raises(UserError, match="cannot be read"):
            answers_file.read(tmp_path / name, study)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no .json file"):
        answers_file.read_all([tmp_path / "empty"], study)

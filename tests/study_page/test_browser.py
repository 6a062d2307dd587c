"""The page in a real browser, served."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect

from lumiere_jax.metrics.user_study import arrange, left_video, right_video
from lumiere_jax.study_page.folder import ANSWERS_FILE
from lumiere_jax.study_page.store import Store
from tests.study_page.rating import at, begin, chosen, expect_pressed, steps
from tests.study_page.videos import make_study

REPOSITORY = Path(__file__).parents[2]


def test_a_whole_session_by_clicks(served, open_page):
    page = open_page(served.url)
    expect(page.locator("#num-pairs")).to_have_text("3")
    rater = begin(page)
    expected = {}
    pairs = arrange(served.study, rater)
    for i, step in enumerate(steps(3)):
        at(page, step)
        pair, question = pairs[i // 3], served.study.questions[i % 3]
        expect(page.locator("#question")).to_have_text(question.text)
        expect(page.locator("#progress-text")).to_contain_text(f"{i // 3 + 1} of 3")
        assert chosen(page, "left") == (pair.prompt, left_video(served.study, rater, pair))
        assert chosen(page, "right") == (pair.prompt, right_video(served.study, rater, pair))
        side = ("left", "right")[i % 2]
        expected[rater, pair.key, question.name] = chosen(page, side)[1]
        page.locator(f"#{side}").click()
    at(page, "done")
    assert served.answers() == expected
    page.reload()
    at(page, "done")
    assert served.answers() == expected


def test_a_whole_session_by_keyboard(served, open_page):
    page = open_page(served.url)
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    at(page, "1.1")
    page.wait_for_function("videos().every(video => !video.paused && video.currentTime > 0.1)")
    page.evaluate("videos().forEach(video => { video.pause(); video.currentTime = 0.4; })")
    page.keyboard.press("Space")
    page.wait_for_function("videos().every(video => !video.paused && video.currentTime < 0.35)")
    sides = []
    for i, step in enumerate(steps(3)):
        at(page, step)
        sides.append("left" if i % 4 < 2 else "right")
        expected = chosen(page, sides[-1])
        page.keyboard.press(["ArrowLeft", "1", "ArrowRight", "2"][i % 4])
        if i == 5:  # goes back, sees the answer, and forward again by the same answer
            at(page, "3.1")
            page.keyboard.press("Backspace")
            at(page, "2.3")
            expect_pressed(page, sides[-1])
            assert chosen(page, sides[-1]) == expected
            page.keyboard.press("1")
    at(page, "done")
    judgements = served.store.judgements()
    assert len(judgements) == 9
    left = sum(judgement.chosen == judgement.left for judgement in judgements)
    assert left == sides.count("left")


def test_focus_is_visible_and_leads_through_the_controls(served, open_page):
    page = open_page(served.url)
    begin(page)
    assert page.evaluate("document.activeElement.id") == "question"
    for expected in ("left", "right", "replay"):  # nothing to go back or on to yet
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == expected
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    names = page.evaluate("videos().map(video => video.getAttribute('aria-label'))")
    assert names == ["Left video", "Right video"]
    assert page.get_by_role("progressbar", name="Progress").get_attribute("aria-valuenow") == "1"


def test_reload_goes_on_with_and_without_the_address(served, open_page):
    page = open_page(served.url)
    rater = begin(page)
    for step in steps(2)[:4]:
        at(page, step)
        page.keyboard.press("1")
    at(page, "2.2")
    before = chosen(page, "left")
    page.reload()
    at(page, "2.2")
    assert chosen(page, "left") == before
    page.goto(served.url)  # the cookie knows the rater
    at(page, "2.2")
    assert f"rater={rater}" in page.url
    page.goto(f"{served.url}?rater={rater}#3.3")  # nobody skips what is open
    page.reload()
    at(page, "2.2")
    elsewhere = open_page(f"{served.url}?rater={rater}")  # without the cookie
    at(elsewhere, "2.2")
    assert chosen(elsewhere, "left") == before
    assert len(served.answers()) == 4


def test_two_presses_at_once_count_once(served, open_page):
    page = open_page(served.url)
    begin(page)
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "PUT" else None)
    page.locator("#left").dblclick(delay=60)  # the second click finds the next question
    at(page, "1.2")
    page.evaluate("() => { $('left').click(); $('left').click(); $('right').click(); }")
    at(page, "1.3")
    page.keyboard.down("ArrowRight")
    at(page, "2.1")
    for _ in range(5):
        page.keyboard.down("ArrowRight")  # a key that is held repeats
    page.keyboard.up("ArrowRight")
    assert not page.evaluate("busy")  # no answer is on its way
    at(page, "2.1")
    assert len(sent) == len(served.answers()) == 3


def test_the_back_button_changes_an_answer(served, open_page):
    page = open_page(served.url)
    rater = begin(page)
    for step in steps(1):
        at(page, step)
        page.keyboard.press("1")
    at(page, "2.1")
    page.go_back()
    at(page, "1.3")
    page.go_back()
    at(page, "1.2")
    expect_pressed(page, "left")
    page.locator("#right").click()
    at(page, "1.3")
    expect_pressed(page, "left")
    page.locator("#next").click()
    at(page, "2.1")
    page.locator("#back").click()
    at(page, "1.3")
    page.reload()
    at(page, "1.3")
    page.locator("#back").click()
    at(page, "1.2")
    expect_pressed(page, "right")
    pair = arrange(served.study, rater)[0]
    left, right = (side(served.study, rater, pair) for side in (left_video, right_video))
    assert served.answers() == {
        (rater, pair.key, "quality"): left,
        (rater, pair.key, "motion"): right,
        (rater, pair.key, "text"): left,
    }


def test_two_raters_at_once(served, open_page):
    pages = [open_page(served.url) for _ in range(2)]
    raters = [begin(page) for page in pages]
    assert raters[0] != raters[1]
    for step in steps(3):
        for page in pages:
            at(page, step)
        for page, key in zip(pages, "12", strict=True):  # answers of both are on their way
            page.keyboard.press(key)
    for page, rater, side in zip(pages, raters, (left_video, right_video), strict=True):
        at(page, "done")
        pairs = {pair.key: pair for pair in served.study.pairs}
        answers = served.answers(rater)
        assert len(answers) == 9
        assert all(
            video == side(served.study, rater, pairs[pair])
            for (_, pair, _), video in answers.items()
        )
    pages[0].locator("#other-person").click()
    expect(pages[0].locator("#start")).to_be_visible()
    assert begin(pages[0]) not in raters


def start_binary(folder: Path, port: int) -> tuple[subprocess.Popen, str]:
    """A server, when it says that it listens, and where."""
    command = [sys.executable, "-m", "lumiere_jax.study", f"--output={folder}", f"--port={port}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    return process, re.search(r"http://\S+", process.stdout.readline())[0]


def test_a_server_that_is_killed_and_comes_back_loses_nothing(tmp_path, open_page):
    folder, study = make_study(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, url = start_binary(folder, port)
    try:
        page = open_page(url)
        rater = begin(page)
        for step in steps(1)[:2]:
            at(page, step)
            page.keyboard.press("1")
        at(page, "1.3")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        page.keyboard.press("2")
        expect(page.locator("#message")).to_contain_text("No connection")
        process.stdout.close()
        process, _ = start_binary(folder, port)
        at(page, "2.1")  # the answer was sent again by itself
        expect(page.locator("#message")).to_be_hidden()
        page.reload()
        at(page, "2.1")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.stdout.close()
    answers = Store(folder / ANSWERS_FILE, study).judgements(rater)
    assert [(j.question, j.chosen == j.left) for j in answers] == [
        ("quality", True),
        ("motion", True),
        ("text", False),
    ]


def test_a_small_phone_shows_everything_without_scrolling_sideways(served, open_page):
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    page = open_page(served.url, **phone)
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(overflow) <= 0
    page.locator("#start").tap()
    at(page, "1.1")
    page.evaluate("$('prompt').textContent = 'x'.repeat(300)")  # the longest word there is
    assert page.evaluate(overflow) <= 0
    page.evaluate("$('prompt').textContent = 'a red ball moving right on a plain background'")
    for name in ("left-video", "right-video", "left", "right", "back", "replay", "next"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360
        assert box["y"] >= 0 and box["y"] + box["height"] <= 640
        assert box["height"] >= 40  # as high as a finger needs
    page.set_viewport_size({"width": 640, "height": 360})  # turned on its side
    assert page.evaluate(overflow) <= 0
    for name in ("left-video", "right-video", "left", "right"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 360
    for step in steps(3):
        at(page, step)
        page.locator("#right").tap()
    at(page, "done")
    assert page.evaluate(overflow) <= 0
    assert len(served.answers()) == 9


def test_nothing_comes_from_elsewhere_and_no_method_is_named(served, open_page):
    addresses, texts = [], []
    page = open_page("about:blank")
    page.on("request", lambda request: addresses.append(request.url))
    page.on("response", lambda reply: texts.append(reply) if "api" in reply.url else None)
    page.goto(served.url)
    begin(page)
    hosts = {address for address in addresses if not address.startswith(served.url)}
    assert all(address.startswith("data:") for address in hosts)
    told = page.content() + "".join(reply.text() for reply in texts)
    assert len(texts) >= 2 and "theirs" not in told and '"ours"' not in told

"""The page of a Space in a browser: every task from the form to the video, and what it says."""

import itertools
import re
import time

import numpy as np
import pytest
from PIL import Image

from lumiere_jax.data.video_io import read_video, write_video
from tests.browser import wait_until
from tests.serving.live import REPOSITORY, LiveServer

PROMPT = "a large red circle moving right on a plain black background"
TABS = (
    "Text to video", "Image to video", "Inpaint", "Outpaint", "Cinemagraph", "Extend",
    "Video to video", "Style",
)  # fmt: skip
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SIDE = 64
SCALE = 8  # a result of 16 pixels is enlarged, for players


@pytest.fixture(name="server", scope="module")
def fixture_server(bundle, tmp_path_factory):
    """What a Space starts."""
    app = REPOSITORY / "launch" / "space" / "app.py"
    data = tmp_path_factory.mktemp("page") / "data"
    server = LiveServer(bundle, data, "--host=127.0.0.1", program=(str(app),))
    while server.client.get(f"{server.url}/").status_code == 503:
        time.sleep(0.1)  # or its questions would take the cores from what loads
    yield server
    server.kill()


@pytest.fixture(name="files", scope="module")
def fixture_files(tmp_path_factory):
    """A video of 8 frames, a mask of its upper left quarter, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("given")
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = np.stack([np.stack([x * 3 + 4 * n, y * 3, x + y], -1) for n in range(8)]) % 256
    write_video(folder / "video.mp4", frames / 127.5 - 1, 8)
    mask = np.where((x < SIDE // 2) & (y < SIDE // 2), 255, 0).astype(np.uint8)
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.full_like(mask, 255)).save(folder / "all.png")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(name="page")
def fixture_page(server, open_page):
    return opened(open_page, server)


def opened(open_page, server, query="", **options):
    page = open_page(f"{server.url}/{query}", **(options or DESKTOP))
    button(page, "Make the video").wait_for()
    return page


def choose(page, name):
    """Opens a tab, which a phone has in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=re.compile(rf"^\s*{name}\s*$"))
    tab.click()
    page.get_by_text("Examples: click one").locator("visible=true").wait_for()


def button(page, name):
    return page.get_by_role("button", name=name, exact=True).locator("visible=true")


def field(page, label):
    """The field under a label, which has its help in it as well."""
    name = page.get_by_test_id("block-info").get_by_text(label, exact=True)
    return page.locator("label", has=name).locator("textarea, input").locator("visible=true")


def make_quick(page):
    """One step, and no super-resolution."""
    page.locator("button.label-wrap", has_text=re.compile("^More options ")).last.click()
    field(page, "Steps").fill("1")
    page.get_by_label("Base only", exact=True).check()


def take_example(page):
    rows = page.locator(".gallery-item, tbody tr").locator("visible=true")
    rows.first.click()
    prompt = field(page, "Prompt")
    wait_until(page, "element => element.value !== ''", prompt.element_handle())


def give(page, path, label="Video"):
    place = page.locator(".block", has=page.get_by_text(label, exact=True)).locator("visible=true")
    place.locator("input[type=file]").first.set_input_files(path)


def give_video(page, path):
    """Waits for its first frame, which is enlarged; an empty editor is not."""
    give(page, path)
    zoom = page.locator(".block", has=page.locator("canvas")).locator("visible=true").last
    wait_until(page, "block => /[1-9][0-9][0-9]%/.test(block.innerText)", zoom.element_handle())
    clip = page.locator("video.given").locator("visible=true").element_handle()
    wait_until(page, "video => video.readyState >= 2", clip)  # nothing moves any more


def make(page, tmp_path):
    """Makes a video of what is chosen; its frames."""
    button(page, "Make the video").click()
    page.locator("#results figcaption", has_text="Done in").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download MP4").first.click()
    download.value.save_as(tmp_path / "made.mp4")
    assert re.fullmatch(r"lumiere-[0-9a-f]{8}\.mp4", download.value.suggested_filename)
    return read_video(tmp_path / "made.mp4", fps=8)


@pytest.mark.parametrize("name", TABS)
def test_every_tab_makes_a_video_of_an_example(page, tmp_path, name):
    choose(page, name)
    make_quick(page)
    take_example(page)
    field(page, "Seed").fill("7")
    frames = make(page, tmp_path)
    assert len(frames) == {"Text to video": 8, "Image to video": 8, "Cinemagraph": 8, "Style": 8,
                           "Extend": 20}.get(name, 16)  # fmt: skip
    results = page.locator("#results")
    assert "seed 7" in results.inner_text()
    assert results.get_by_text("Before").is_visible() == (name not in ("Text to video", "Style"))
    for shown in results.locator("video").all():
        wait_until(page, "video => video.readyState >= 2 && !video.error", shown.element_handle())


def paint(page, is_stroke=False):
    """Paints in the upper left quarter of the frame: much of it, or one stroke across it."""
    box = page.locator("canvas").locator("visible=true").first
    box.scroll_into_view_if_needed()
    box = box.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 100, y - 100)
    page.mouse.down()
    if is_stroke:
        page.mouse.move(x - 20, y - 20, steps=8)
    for row in range(0 if is_stroke else 17):
        page.mouse.move(x - 100 + 80 * (row % 2), y - 100 + 5 * row, steps=4)
    page.mouse.up()


@pytest.mark.parametrize("way", ["painted", "box", "uploaded"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_only_the_region_changes(open_page, server, files, tmp_path, device, way):
    page = opened(open_page, server, **device)
    choose(page, "Inpaint")
    assert page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]
    make_quick(page)
    field(page, "Prompt").fill(PROMPT)
    give_video(page, files / "video.mp4")
    if way == "uploaded":
        give(page, files / "mask.png", "Mask in place of the painting")
        page.get_by_text("region: 25.0% of the frame").wait_for()
    else:
        paint(page, is_stroke=way == "box")
        button(page, "Check the region").click()
        region = page.locator(".prose.region").locator("visible=true")
        page.get_by_text(re.compile(r"region: \d+\.\d% of the frame")).wait_for()
        drawn = region.inner_text()
        if way == "box":
            button(page, "Turn it into a box").click()
            changed = "(e, text) => e.innerText.includes('%') && e.innerText !== text"
            wait_until(
                page, f"([e, text]) => ({changed})(e, text)", [region.element_handle(), drawn]
            )
            assert share(region.inner_text()) > 1.3 * share(drawn)
        assert 1 < share(region.inner_text()) < 50
    made = make(page, tmp_path)
    source = read_video(files / "video.mp4", fps=8)
    small = source.reshape(8, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    changed = np.abs(made[:, ::SCALE, ::SCALE].astype(float) - small).max(axis=-1)
    assert made.shape[1] == 16 * SCALE
    assert np.median(changed[:, 4:6, 4:6]) > 24
    assert changed[:, 11:].max() < 24 and changed[:, :, 11:].max() < 24


def share(text):
    return float(re.search(r"(\d+\.\d)%", text)[1])


def test_what_is_wrong_is_told_before_a_job_is_made(page, files, server):
    choose(page, "Inpaint")
    before = server.client.get("/metrics").text.count("lumiere_jobs_accepted_total{")
    for act, told in (
        (lambda: field(page, "Prompt").fill(PROMPT), "Choose a video first"),
        (lambda: give(page, files / "broken.mp4"), "is not a supported video"),
        (lambda: None, "Paint the region on the picture first"),
    ):
        act()
        if "supported" not in told:
            button(page, "Make the video").click()
        page.get_by_text(told).first.wait_for()
    button(page, "Clear").first.click()
    give_video(page, files / "video.mp4")
    give(page, files / "all.png", "Mask in place of the painting")
    page.get_by_text("covers all of the frame").first.wait_for()
    field(page, "Prompt").fill("")
    button(page, "Make the video").click()
    page.get_by_text("Write a prompt").first.wait_for()
    choose(page, "Text to video")
    field(page, "Prompt").fill("a corgi on a beach")
    page.get_by_text("They know small, large circle").locator("visible=true").first.wait_for()
    field(page, "Seed").fill("x")
    button(page, "Make the video").click()
    page.get_by_text("The seed must be a whole number").wait_for()
    assert server.client.get("/metrics").text.count("lumiere_jobs_accepted_total{") == before
    page.get_by_role("button", name="What this model knows").click()
    page.get_by_text("It is small, and was only shown").wait_for()


def test_progress_and_cancelling(page, server):
    field(page, "Prompt").fill(PROMPT)
    page.locator("button.label-wrap", has_text=re.compile("^More options ")).last.click()
    field(page, "Steps").fill("200")
    button(page, "Make the video").click()
    page.locator("#progress", has_text=re.compile(r"Base: step \d+ of 200.* · \d+ s")).wait_for()
    page.locator("#progress img").wait_for()
    wait_until(page, "() => document.querySelector('#progress img')?.naturalWidth > 0")
    button(page, "Cancel").click()
    page.locator("#results figcaption", has_text="Cancelled").wait_for()
    assert not button(page, "Cancel").is_visible()
    page.reload()
    page.locator("#results figcaption", has_text="Cancelled").wait_for()  # the history has it


def test_several_videos_and_links_to_their_settings(page, open_page, tmp_path):
    choose(page, "Style")
    make_quick(page)
    field(page, "Prompt").fill("ä & b = c #1")
    field(page, "Seed").fill("41")
    page.get_by_label("number input for Videos").fill("2")
    page.get_by_label("number input for Style strength").locator("visible=true").fill("0.25")
    make(page, tmp_path)
    captions = page.locator("#results figcaption")
    wait_until(page, "() => document.querySelectorAll('#results video').length === 2")
    assert ["seed 41" in captions.nth(0).inner_text(), "seed 42" in captions.nth(1).inner_text()]
    menu = page.get_by_label("Use this video in another task").nth(1)
    menu.select_option("animate")
    picture = page.get_by_test_id("detailed-image").or_(page.locator(".image-frame img"))
    picture.locator("visible=true").first.wait_for()
    assert field(page, "Prompt").input_value() == "ä & b = c #1"
    menu.select_option("inpaint")
    clip = page.locator("video.given").locator("visible=true").element_handle()
    wait_until(page, "video => video.readyState >= 2", clip)
    assert page.get_by_role("tab", name="Inpaint").get_attribute("aria-selected") == "true"
    link = page.get_by_role("link", name="Link to these settings").nth(1).get_attribute("href")
    other = open_page(page.url.rstrip("/") + link, **DESKTOP)
    page.reload()  # as Gradio does once there is another server
    for opened_page, seed in ((other, "42"), (page, "41")):
        assert_settings(opened_page, seed)


def assert_settings(page, seed):
    wait_until(page, "() => document.querySelector('[aria-selected=true]')?.innerText === 'Style'")
    prompt = field(page, "Prompt").element_handle()
    wait_until(page, "element => element.value === 'ä & b = c #1'", prompt)
    assert field(page, "Seed").input_value() == seed and field(page, "Steps").count() == 0
    strength = page.get_by_label("number input for Style strength").locator("visible=true")
    assert strength.input_value() == "0.25"


def test_nothing_comes_from_elsewhere(server, open_page):
    page = open_page("about:blank", **PHONE)
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.goto(server.url)
    button(page, "Make the video").wait_for()
    for name in TABS:
        choose(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    assert asked and all(url.startswith((server.url, "blob:", "data:")) for url in asked)
    assert not [text for text in told if "Content Security Policy" in text]


def test_the_library_is_no_way_around(server, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"what nobody may see")
    base, post = server.url, server.client.post
    for path in (secret, "/etc/passwd", server.data / "queue.sqlite", f"{base}/"):
        assert server.client.get(f"{base}/gradio_api/file={path}").status_code in (403, 404)
    sent = post(f"{base}/gradio_api/upload", files={"files": ("../../x.svg", b"<svg/>")})
    place = sent.json()[0]
    assert str(server.data / "tmp" / "gradio") in place and place.endswith("/x.svg")
    given = server.client.get(f"{base}/gradio_api/file={place}").headers
    assert given["content-disposition"].startswith("attachment")
    assert "script-src" not in given["content-security-policy"]
    large = post(f"{base}/gradio_api/upload", files={"files": ("x.mp4", bytes(33 * 2**20))})
    assert large.status_code == 413
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert post(f"{base}/gradio_api/queue/join", json={}, headers=foreign).status_code == 403
    config = server.client.get(f"{base}/config").json()
    reading = [d["id"] for d in config["dependencies"]
               if len(d["inputs"]) == 1 and d["targets"][0][1] in ("change", "upload")]  # fmt: skip
    assert len(reading) > 5
    for number, path in itertools.product(reading, (str(secret), "/etc/passwd")):
        body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "session_hash": "x",
                "fn_index": number}  # fmt: skip
        event = post(f"{base}/gradio_api/queue/join", json=body)
        with server.client.stream("GET", f"{base}/gradio_api/queue/data?session_hash=x") as news:
            text = "".join(news.iter_text())
        assert event.status_code == 200 and "nobody" not in text and "root:" not in text

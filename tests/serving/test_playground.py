"""The page of the server in a browser: every task from the form to the video."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lumiere_jax.data.image_folder import read_image
from lumiere_jax.data.video_io import read_video, write_video
from tests.browser import wait_until

PROMPT = "a large red circle moving right"
ALL = {
    "Text to video": "text_to_video", "Stylize": "stylize", "Animate": "animate",
    "Inpaint": "inpaint", "Cinemagraph": "cinemagraph", "Outpaint": "outpaint",
    "Extend": "extend", "Video to video": "video_to_video",
}  # fmt: skip
PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}


@pytest.fixture(name="files", scope="module")
def fixture_files(tmp_path_factory):
    """A picture and a video of 8 frames, 16 pixels high and 24 wide."""
    folder = tmp_path_factory.mktemp("given")
    y, x = np.mgrid[:16, :24]
    frames = np.stack([np.stack([x * 9 + 4 * n, y * 12, x + y], -1) for n in range(8)]) % 256
    Image.fromarray(frames[0].astype(np.uint8)).save(folder / "image.png")
    write_video(folder / "video.mp4", frames / 127.5 - 1, 8)
    return {"image": folder / "image.png", "video": folder / "video.mp4"}


@pytest.fixture(name="page")
def fixture_page(shared_server, open_page):
    page = open_page(shared_server.url)
    page.locator("#form").wait_for()
    return page


def choose(page, name):
    page.locator("#tasks label", has_text=re.compile(f"^{name}$")).click()


def fill(page, prompt=PROMPT, steps="1", small=True):
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps", exact=True).fill(steps)
    if small:
        page.locator("details").evaluate("place => { place.open = true; }")
        page.get_by_label("Size", exact=True).select_option("true")


def give(page, path):
    page.locator("#file").set_input_files(path)
    shown = "#clip" if path.suffix == ".mp4" else "#picture"
    page.locator(shown).wait_for()


def paint(page):
    """Drags over the upper left quarter of the frame."""
    canvas = page.locator("#canvas")
    page.locator("#brush").fill("30")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3, steps=4)
    page.mouse.up()


def make(page, tmp_path):
    """Submits, and waits for the video; its frames."""
    page.get_by_role("button", name="Make the video").click()
    page.locator("#result").wait_for(timeout=600_000)
    wait_until(page, "document.getElementById('result').readyState >= 2")
    assert page.locator("#problem").is_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download MP4").click()
    download.value.save_as(tmp_path / "made.mp4")
    assert re.fullmatch(r"lumiere-[0-9a-f]{8}\.mp4", download.value.suggested_filename)
    return read_video(tmp_path / "made.mp4", fps=8)


def test_all_tasks_are_offered(page, shared_server):
    assert page.locator("#tasks label").all_text_contents() == list(ALL)
    assert set(shared_server.client.get("/info").json()["tasks"]) == set(ALL.values())
    assert page.get_by_text("Ready").is_visible()


def test_a_video_from_a_prompt(page, tmp_path):
    fill(page, steps="2", small=False)
    page.get_by_label("Seed").fill("7")
    assert len(make(page, tmp_path)) == 8
    assert page.locator("#job-prompt").text_content() == PROMPT
    assert page.get_by_text(re.compile("^Done in ")).is_visible()
    assert page.locator("#details").inner_text().split()[-2:] == ["seed", "7"] or (
        "seed\n7" in page.locator("#details").inner_text()
    )


@pytest.mark.parametrize(
    ("name", "given"),
    [("Animate", "image"), ("Outpaint", "video"), ("Video to video", "video")],
)
def test_a_video_from_an_upload(page, files, tmp_path, name, given):
    choose(page, name)
    fill(page)
    give(page, files[given])
    assert len(make(page, tmp_path)) == 8


def test_a_video_goes_on(page, files, tmp_path):
    choose(page, "Extend")
    fill(page)
    page.get_by_label("Frames", exact=True).fill("4")
    give(page, files["video"])
    assert len(make(page, tmp_path)) == 12


def test_a_style(page, tmp_path):
    choose(page, "Stylize")
    fill(page)
    page.get_by_label("Style strength").fill("0.25")
    assert page.locator("output").first.text_content() == "0.25"
    assert len(make(page, tmp_path)) == 8
    assert "alpha\n0.25" in page.locator("#details").inner_text()


@pytest.mark.parametrize(("name", "given"), [("Inpaint", "video"), ("Cinemagraph", "image")])
def test_a_painted_region(page, files, tmp_path, name, given):
    choose(page, name)
    fill(page)
    give(page, files[given])
    wait_until(
        page,
        """() => {
      const frame = document.getElementById("canvas").getContext("2d");
      return frame.getImageData(20, 8, 1, 1).data[0] > 100;
    }""",
    )
    page.get_by_role("button", name="Make the video").click()
    assert "Paint the region" in page.locator("#problem").text_content()
    paint(page)
    mask = sent_mask(page)
    assert mask.shape == (16, 24) and set(np.unique(mask)) == {0, 255}
    assert mask[2, 2] == 255 and mask[-2, -2] == 0
    made = make(page, tmp_path)
    assert len(made) == 8
    assert_only_changed(made, frames_of(files[given]), mask > 0)
    assert re.search(r"region\n\d+\.\d% of the frame", page.locator("#details").inner_text())


def frames_of(path):
    """Of a video, or of a picture that stands still."""
    is_video = path.suffix == ".mp4"
    return read_video(path, fps=8) if is_video else np.repeat(read_image(path)[None], 8, axis=0)


def assert_only_changed(made, source, painted):
    """In the central square, and but for the soft border of a region and a codec's noise."""
    factor, square = made.shape[1] // 16, slice(4, 20)
    small = made.reshape(8, 16, factor, 16, factor, 3).mean(axis=(2, 4))
    changed = np.abs(small - source[:, :, square]).max(axis=-1)[1:]
    near = ndimage.binary_dilation(painted[:, square], iterations=4)
    assert (~near).sum() > 40 and changed[:, ~near].max() < 24
    assert np.median(changed[:, painted[:, square]]) > 24


def sent_mask(page):
    """The mask in the request that the form would send."""
    with page.expect_request("**/api/v1/jobs") as request:
        page.route("**/api/v1/jobs", lambda route: route.fulfill(
            status=429, content_type="application/json", body='{"detail": "a test"}'
        ))  # fmt: skip
        page.get_by_role("button", name="Make the video").click()
    page.get_by_text("Not accepted: a test").wait_for()
    page.unroute("**/api/v1/jobs")
    body = request.value.post_data_buffer
    begin = body.index(b"\x89PNG", body.index(b'name="mask"'))
    return np.asarray(Image.open(io.BytesIO(body[begin:])).convert("L"))


def test_the_region_by_keyboard(page, files):
    choose(page, "Cinemagraph")
    fill(page)
    give(page, files["image"])
    page.locator("#brush").fill("10")
    page.locator("#canvas").focus()
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Space", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert "is covered" in page.locator("#covered").text_content()
    painted = sent_mask(page) > 0
    assert painted.any() and painted[:, 12:].sum() == 0
    page.get_by_role("button", name="Invert").click()
    assert (sent_mask(page) > 0).sum() == painted.size - painted.sum()
    page.get_by_role("button", name="Erase").click()
    page.locator("#brush").fill("40")
    page.locator("#canvas").focus()
    page.keyboard.press("Space")
    assert (sent_mask(page) > 0).sum() < painted.size - painted.sum()
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#covered").text_content() == "0% is covered"


def test_progress_with_previews_and_cancelling(page):
    fill(page, steps="200", small=False)
    page.get_by_role("button", name="Make the video").click()
    page.locator("#preview").wait_for(timeout=600_000)
    assert re.match(r"Base: step \d+ of 200|Super", page.locator("#state").text_content())
    assert page.locator("#preview").evaluate("shown => shown.complete && shown.naturalWidth") > 0
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled", exact=True).wait_for()
    assert page.locator("#result").is_hidden() and page.locator("#cancel").is_hidden()


def test_history_survives_a_reload_and_settings_can_be_used_again(page, tmp_path):
    fill(page, prompt="a small blue cross standing still", steps="")
    page.get_by_label("Seed").fill("11")
    make(page, tmp_path)
    page.reload()
    entry = page.locator("#list button", has_text="a small blue cross standing still")
    entry.click()
    page.locator("#result").wait_for()
    page.get_by_label("Frames", exact=True).fill("4")
    page.get_by_label("Steps", exact=True).fill("77")
    page.get_by_role("button", name="Use these settings").click()
    assert (
        page.get_by_label("Prompt", exact=True).input_value() == "a small blue cross standing still"
    )
    assert page.get_by_label("Seed").input_value() == "11"
    assert page.get_by_label("Frames", exact=True).input_value() == ""
    assert page.get_by_label("Steps", exact=True).input_value() == ""
    page.get_by_role("button", name="Change this video").click()
    page.locator("#clip").wait_for()
    assert page.locator("#tasks input:checked").get_attribute("value") == "video_to_video"
    page.get_by_role("button", name="Forget all").click()
    assert page.locator("#list button").count() == 0


def test_history_tells_of_jobs_that_are_not_shown(page, shared_server):
    fill(page, prompt="first", small=False)
    page.get_by_role("button", name="Make the video").click()
    page.locator("#list button", has_text="first").wait_for()
    fill(page, prompt="second")
    page.get_by_role("button", name="Make the video").click()
    page.locator("#list button[aria-current]", has_text="second").wait_for()
    page.locator("#list button", has_text=re.compile("first.*, done,")).wait_for(timeout=600_000)


def test_a_link_has_the_settings(page, open_page):
    choose(page, "Video to video")
    page.get_by_label("Prompt", exact=True).fill("ä & b = c #1")
    page.get_by_label("Strength").fill("0.333")
    page.get_by_label("Seed").fill("5")
    page.get_by_role("button", name="Copy a link").click()
    page.get_by_text("The link is").wait_for()
    other = open_page(page.url)
    other.locator("#form").wait_for()
    assert other.get_by_label("Prompt", exact=True).input_value() == "ä & b = c #1"
    strength = other.get_by_label("Strength")
    assert strength.input_value() == other.locator("output").text_content() == "0.333"
    strength.press("ArrowRight")
    assert re.fullmatch(r"0\.3[4-9]|0\.4\d?", other.locator("output").text_content())
    assert other.get_by_label("Seed").input_value() == "5"
    assert other.locator("#tasks input:checked").get_attribute("value") == "video_to_video"


def test_files_and_regions_are_kept_while_arrow_keys_pass_other_tasks(page, files):
    choose(page, "Inpaint")
    give(page, files["video"])
    paint(page)
    covered = page.locator("#covered").text_content()
    page.locator("#tasks input:checked").press("ArrowRight")
    assert page.locator("#tasks input:checked").get_attribute("value") == "cinemagraph"
    assert page.locator("#canvas").is_hidden()
    page.locator("#tasks input:checked").press("ArrowLeft")
    page.locator("#canvas").wait_for()
    wait_until(page, "text => document.getElementById('covered').textContent === text", covered)
    assert covered != "0% is covered"
    assert page.locator("#file").evaluate("input => input.files[0].name") == "video.mp4"
    # Faster than the video is loaded.
    page.evaluate("""() => {
      for (const name of ["cinemagraph", "inpaint", "cinemagraph", "inpaint", "cinemagraph"]) {
        document.querySelector(`#tasks input[value=${name}]`).click();
      }
    }""")
    page.wait_for_timeout(300)
    assert page.locator("#clip").is_hidden() and page.locator("#canvas").is_hidden()
    choose(page, "Inpaint")
    page.locator("#canvas").wait_for()
    assert page.locator("#covered").text_content() == covered


def test_fields_take_what_the_server_takes_and_say_what_they_do_not(page):
    fill(page, small=False)
    more = page.locator("details")
    page.get_by_label("Guidance scale", exact=True).evaluate("input => { input.value = '7.55'; }")
    assert page.locator("#form").evaluate("form => form.checkValidity()")
    page.get_by_label("Guidance scale", exact=True).evaluate("input => { input.value = '101'; }")
    assert not more.evaluate("place => place.open")
    page.get_by_role("button", name="Make the video").click()
    assert more.evaluate("place => place.open") and page.locator("#result").is_hidden()


def test_history_of_other_tabs_and_servers_stays(shared_server, open_page):
    page = open_page(shared_server.url)
    page.locator("#form").wait_for()
    page.evaluate("localStorage.setItem('lumiere_jax.jobs', JSON.stringify(['unknown-here']))")
    fill(page)
    page.get_by_role("button", name="Make the video").click()
    page.locator("#list button").wait_for()
    kept = page.evaluate("JSON.parse(localStorage.getItem('lumiere_jax.jobs'))")
    assert len(kept) == 2 and kept[1] == "unknown-here"
    # What another tab forgot does not come back, and what is made while it loads is not lost.
    page.evaluate("localStorage.setItem('lumiere_jax.jobs', JSON.stringify(['forgotten']))")
    held = []
    page.route("**/api/v1/jobs?ids=*", lambda route: held.append(route))
    page.reload()
    page.locator("#form").wait_for()
    page.evaluate("localStorage.setItem('lumiere_jax.jobs', JSON.stringify(['of-another-tab']))")
    fill(page, prompt="a small blue cross standing still")
    page.get_by_role("button", name="Make the video").click()
    entry = page.locator("#list button", has_text="a small blue cross")
    entry.wait_for()
    with page.expect_response("**/api/v1/jobs?ids=*"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert page.locator("#list button").count() == 1 and entry.is_visible()
    kept = page.evaluate("JSON.parse(localStorage.getItem('lumiere_jax.jobs'))")
    assert len(kept) == 2 and kept[1] == "of-another-tab"


def test_what_the_server_refuses_is_told(page, files):
    choose(page, "Animate")
    fill(page)
    page.get_by_role("button", name="Make the video").click()
    assert page.locator("#problem").text_content() == "Choose a picture first."
    page.locator("#file").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_text("This browser cannot show x.png").wait_for()
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text("Not accepted: image: is not a supported picture").wait_for()
    assert page.get_by_role("button", name="Make the video").is_enabled()


def test_on_a_phone_by_touch_nothing_is_wider_than_the_screen(shared_server, open_page, files):
    page = open_page(shared_server.url, **PHONE)
    page.locator("#form").wait_for()
    for name in ALL:
        choose(page, name)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["viewport"]["width"], name
    choose(page, "Cinemagraph")
    give(page, files["image"])
    page.locator("#canvas").scroll_into_view_if_needed()
    page.locator("#canvas").tap()
    wait_until(page, "!document.getElementById('covered').textContent.startsWith('0%')")


def test_nothing_comes_from_elsewhere(shared_server, open_page):
    page = open_page("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(shared_server.url)
    page.locator("#form").wait_for()
    assert asked and all(url.startswith((shared_server.url, "blob:", "data:")) for url in asked)
    assert not [text for text in refused if "Content Security Policy" in text]


def test_the_whole_form_by_keyboard(page):
    page.locator("#tasks input").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type(PROMPT)
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"option-seed", "option-steps", "SUMMARY", "submit", "share"} <= reached
    assert json.loads(page.evaluate("JSON.stringify(location.hash)")) == ""

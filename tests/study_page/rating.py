"""What a rater does, in terms of the page."""

import re

from playwright.sync_api import Page, expect


def begin(page: Page) -> str:
    """Starts, and returns the rater's name."""
    page.locator("#start").click()
    at(page, "1.1")
    return re.search(r"rater=(\w+)", page.url)[1] if "rater=" in page.url else ""


def at(page: Page, step: str) -> None:
    """Waits until the page shows a step and takes an answer."""
    page.wait_for_function(
        "step => location.hash === '#' + step && (step === 'done' ? !$('done').hidden"
        " : !$('work').hidden && !$('left').disabled)",
        arg=step,
    )


def steps(num_pairs: int, num_questions: int = 3) -> list[str]:
    return [f"{p + 1}.{q + 1}" for p in range(num_pairs) for q in range(num_questions)]


def chosen(page: Page, side: str) -> tuple[str, str]:
    """(prompt, video on that side) that is shown."""
    source = page.locator(f"#{side}-video").get_attribute("src")
    return page.locator("#prompt").inner_text(), source.removeprefix("videos/")


def expect_pressed(page: Page, side: str | None) -> None:
    for name in ("left", "right"):
        pressed = "true" if name == side else "false"
        expect(page.locator(f"#{name}")).to_have_attribute("aria-pressed", pressed)

"""Waiting for a state of a page."""

import time
from typing import Any

from playwright.sync_api import Page


def wait_until(page: Page, expression: str, argument: Any = None) -> None:
    """Asks from here until it is true; a page with a Content-Security-Policy could not ask itself.

    Raises:
      TimeoutError: It is not true after 200 s; an idle machine takes some seconds.
    """
    end = time.monotonic() + 200
    while not page.evaluate(expression, argument):
        if time.monotonic() > end:
            raise TimeoutError(f"The page did not get there: {expression}")
        page.wait_for_timeout(50)  # milliseconds; the page goes on in them

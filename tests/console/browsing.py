"""A browser's visit to the console. It notes errors, and what the page asks of other hosts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# Playwright's own builds of browsers are not used: any Chromium of the system does.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_MS = 60_000
DESKTOP = {"width": 1280, "height": 900}
# A busy machine is slow, and an expectation that holds at once waits for nothing.
expect.set_options(timeout=WAIT_MS)
PHONE = {"width": 375, "height": 800}


def skip_without_chromium() -> None:
    """Skip the test that runs, with the reason, if this machine has no Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which `apt-get install chromium` installs")


@contextmanager
def run_browser() -> Iterator[Browser]:
    """Start a headless Chromium that finds no host but this machine."""
    # In a container Chromium runs as root and has little shared memory.
    options = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Visit:
    """A page of a new browser context. `errors` are its messages, `foreign` the addresses outside the server."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(viewport=context.pop("viewport", DESKTOP), **context)
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._look(request.url))

    def open(self, path: str = "/") -> Page:
        """Open a path of the server, and wait until the console shows its first heading."""
        self.page.goto(f"{self.url}{path}")
        self.page.locator("h1").first.wait_for()
        return self.page

    def expect_refusals(self) -> None:
        """Forget the browser's own messages about answers that are no success. The page's errors stay."""
        self.errors = [error for error in self.errors if not error.startswith("Failed to load resource")]

    def close(self) -> None:
        """Close the page. Fail if it reported an error or asked for anything outside the server."""
        self.context.close()
        assert self.errors == []
        assert self.foreign == []

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    def _look(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.url).netloc:
            self.foreign.append(address)

"""The console's addresses, its dialogs when the view changes, and a browser that blocks its storage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.console.browsing import Visit

# A browser throws this error where its user blocks the data of a site.
BLOCKED = """for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { get() { throw new DOMException("blocked", "SecurityError"); } });"""


def ask_for_key(page: Page) -> None:
    """Do as an answer of 401 does."""
    page.evaluate(
        "import('./console/assets/session.js').then(({ session }) => session.dispatchEvent(new Event('needed')))"
    )


@pytest.mark.parametrize(
    "address", ["constructor", "__proto__", "hasOwnProperty/x", "adapters/%E0%A4%A", "adapters/", "nowhere"]
)
def test_an_address_without_a_view_says_so(visit: Callable[..., Visit], address: str) -> None:
    page = visit().open(f"/#/{address}")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
    assert page.title() == "There is no such page · Rootstock"


def test_a_dialog_goes_with_its_view(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/events")
    page.get_by_role("link", name="mood").first.click()
    page.get_by_role("button", name="Promote version 1").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Events")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_dialog_makes_room_for_the_form_that_asks_for_a_key(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    ask_for_key(page)
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.get_by_label("Key")).to_be_focused()


@pytest.mark.parametrize("key", ["schlüssel", "two words", "“quoted”"])
def test_a_key_that_no_header_can_hold_is_refused_at_once(console: Page, key: str) -> None:
    ask_for_key(console)
    console.get_by_label("Key").fill(key)
    console.get_by_role("button", name="Sign in").click()
    expect(console.get_by_role("alert")).to_contain_text("visible ASCII characters only, without spaces")
    assert console.evaluate("sessionStorage.length") == 0
    console.get_by_label("Key").fill("reader")
    console.get_by_role("button", name="Sign in").click()
    expect(console.get_by_role("heading", level=1)).to_have_text("Adapters")


def test_the_console_works_in_a_browser_that_blocks_its_storage(visit: Callable[..., Visit]) -> None:
    here = visit(color_scheme="dark")
    here.page.add_init_script(BLOCKED)
    page = here.open()
    expect(page.get_by_role("heading", level=1)).to_have_text("Adapters")
    page.get_by_role("button", name="Change the theme").click()
    expect(page.locator("#theme")).to_have_text("Theme: light")
    ask_for_key(page)
    page.get_by_label("Key").fill("reader")
    with page.expect_request("**/v1/adapters?**") as sent:
        page.get_by_role("button", name="Sign in").click()
    assert sent.value.headers["authorization"] == "Bearer reader"
    expect(page.get_by_role("heading", level=1)).to_have_text("Adapters")

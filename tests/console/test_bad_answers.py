"""The console shows an error for an answer in another form than the server's, as a proxy may send it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from rootstock.service.composition.demo_adapters import DEMO
from tests.console.browsing import Visit

FORMS = ['{"message": "Bad gateway"}', '{"error": "denied"}', '{"error": null}', "null", "<h1>502</h1>"]
REMARK = "and not the server's form; a proxy may have sent it"


def answers(page: Page, path: str, status: int, body: str) -> None:
    """Answer calls of a path as a proxy does that stands before the server."""

    def answer(route: Route) -> None:
        route.fulfill(status=status, body=body, content_type="application/json")

    page.route(path, answer)


@pytest.mark.parametrize("body", FORMS)
def test_an_error_in_another_form_is_named_with_its_status(visit: Callable[..., Visit], body: str) -> None:
    here = visit()
    answers(here.page, "**/v1/adapters?**", 502, body)
    page = here.open()
    expect(page.get_by_role("alert")).to_contain_text(f"the answer has the status 502 {REMARK}")
    here.expect_refusals()


@pytest.mark.parametrize(
    ("status", "body"), [(502, '{"message": "Bad gateway"}'), (502, '{"error": null}'), (201, "<h1>Hello</h1>")]
)
def test_an_upload_ends_with_an_answer_in_another_form(
    visit: Callable[..., Visit], status: int, body: str
) -> None:
    here = visit()
    answers(here.page, "**/v1/adapters", status, body)
    page = here.open("/#/upload?name=lost")
    page.get_by_label("Choose a file").set_input_files(DEMO / "support-intents.zip")
    page.get_by_role("button", name="Verify and publish").click()
    expect(page.get_by_role("alert")).to_contain_text(f"the answer has the status {status} {REMARK}")
    expect(page.get_by_role("button", name="Verify and publish")).to_be_enabled()
    here.expect_refusals()


def test_a_server_that_is_not_ready_is_shown_so_in_each_form(visit: Callable[..., Visit]) -> None:
    here = visit()
    answers(here.page, "**/readyz", 503, '{"status": "starting"}')
    page = here.open()
    expect(page.locator("#health")).to_have_text("not ready")
    here.expect_refusals()

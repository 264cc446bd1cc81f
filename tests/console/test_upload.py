"""The console uploads a bundle and shows its checks."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from rootstock.adapters.reference import is_name
from rootstock.service.composition.demo_adapters import DEMO
from tests.console.browsing import Visit
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter


@pytest.fixture
def page(visit: Callable[..., Visit]) -> Page:
    return visit().open("/#/upload")


def drop(page: Page, name: str, content: bytes) -> None:
    transfer = page.evaluate_handle(
        """([name, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})


def test_a_good_bundle_passes_every_check_and_is_live(page: Page, client: httpx.Client) -> None:
    page.get_by_label("Choose a file").set_input_files(DEMO / "support-intents.zip")
    expect(page.get_by_label("Name")).to_have_value("support-intents")
    page.get_by_role("button", name="Verify and publish").click()
    checks = page.get_by_role("region", name="Checks")
    expect(checks).to_contain_text("Every check passed.")
    expect(checks.locator("li.passed")).to_have_count(14)
    expect(checks.locator("li", has_text="golden")).to_contain_text("the outputs differ by at most")
    expect(page.get_by_role("region", name="Published")).to_contain_text(
        "support-intents v1 is published and live"
    )
    page.get_by_role("link", name="Show the adapter").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("support-intents")
    assert client.get("/v1/adapters/support-intents").json()["live"] == 1


def test_a_version_that_awaits_approval_is_published_and_not_called_live(
    page: Page, client: httpx.Client
) -> None:
    answer = upload(client, "awaiting", (DEMO / "entities.zip").read_bytes(), activate="false")
    assert answer.status_code == 201
    awaiting = {**answer.json(), "awaits_approval": True}
    page.route("**/v1/adapters", lambda route: route.fulfill(status=201, json=awaiting))
    page.get_by_label("Choose a file").set_input_files(DEMO / "entities.zip")
    page.get_by_label("Name").fill("awaiting")
    page.get_by_role("button", name="Verify and publish").click()
    published = page.get_by_role("region", name="Published")
    expect(published).to_contain_text("awaiting v1 is published")
    expect(published).to_contain_text("It awaits approval.")
    expect(published.get_by_role("heading")).not_to_contain_text("live")


def test_a_file_is_dropped_and_need_not_be_made_live(
    page: Page, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    drop(page, "Dropped Mood.zip", peft_saved["second"].zip())
    expect(page.get_by_label("Name")).to_have_value("dropped-mood")
    page.get_by_label("Make this version live").uncheck()
    page.get_by_role("button", name="Verify and publish").click()
    expect(page.get_by_role("region", name="Published")).to_contain_text("dropped-mood v1 is published")
    expect(page.get_by_role("region", name="Checks").locator("li", has_text="golden")).to_contain_text(
        "nothing was compared"
    )
    assert client.get("/v1/adapters/dropped-mood").json()["live"] is None


def test_a_bad_bundle_shows_the_check_that_refused_it_and_changes_nothing(
    visit: Callable[..., Visit], client: httpx.Client, peft_saved: dict[str, PeftAdapter], tmp_path: Path
) -> None:
    bad = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(peft_saved["first"].zip())) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:-7] if name == "adapter_model.safetensors" else content)
    (tmp_path / "bad.zip").write_bytes(bad.getvalue())
    here = visit()
    page = here.open("/#/upload?name=bad")
    page.get_by_label("Choose a file").set_input_files(tmp_path / "bad.zip")
    page.get_by_role("button", name="Verify and publish").click()
    checks = page.get_by_role("region", name="Checks")
    expect(checks).to_contain_text("The check “safetensors” refused the bundle. Nothing has changed.")
    expect(checks.locator("li.refused")).to_contain_text("safetensors")
    passed = ["size", "members", "signature", "names", "conversion"]
    expect(checks.locator("li.passed strong")).to_have_text(passed)
    expect(checks.locator("li", has_text="golden")).to_contain_text("not reached")
    expect(checks.locator("li", has_text="schema")).to_contain_text("not complete")
    expect(page.get_by_role("alert")).to_contain_text("rejected_safetensors")
    here.expect_refusals()
    assert client.get("/v1/adapters/bad").status_code == 404


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.csv", b"PK\x03\x04", "x.csv is not a zip: its name does not end with .zip."),
        ("x.zip", b"text,label\n", "x.zip is not a zip: its first bytes are not those of one."),
        ("empty.zip", b"", "empty.zip is not a zip: its first bytes are not those of one."),
    ],
)
def test_a_file_that_is_no_zip_is_refused_at_the_drop(
    page: Page, name: str, content: bytes, problem: str
) -> None:
    drop(page, "good.zip", b"PK\x03\x04")
    expect(page.locator(".drop")).to_contain_text("good.zip, 4 B")
    page.get_by_label("Name").fill("")
    drop(page, name, content)
    expect(page.locator(".drop .problem")).to_contain_text(problem)
    expect(page.get_by_label("Name")).to_have_value("")
    page.get_by_label("Name").fill("typed")
    page.get_by_role("button", name="Verify and publish").click()
    expect(page.get_by_role("alert")).to_have_text("No file is chosen; drop a zip, or choose one.")


@pytest.mark.parametrize("live", [True, False])
def test_the_same_content_again_is_no_new_version(page: Page, client: httpx.Client, live: bool) -> None:
    data = (DEMO / "support-intents.zip").read_bytes()
    assert upload(client, "again", data).status_code in (200, 201)
    drop(page, "again.zip", data)
    page.get_by_label("Make this version live").set_checked(live)
    page.get_by_role("button", name="Verify and publish").click()
    result = page.get_by_role("region", name="Not published")
    expect(result).to_contain_text("This content is already version 1 of again")
    expect(result).to_contain_text("live points to version 1." if live else "No alias has moved.")
    expect(page.get_by_role("status")).to_have_text("This content is already version 1 of again.")
    assert len(client.get("/v1/adapters/again").json()["versions"]) == 1


def test_without_a_file_nothing_is_sent(page: Page) -> None:
    page.get_by_label("Name").fill("empty")
    page.get_by_role("button", name="Verify and publish").click()
    expect(page.get_by_role("alert")).to_have_text("No file is chosen; drop a zip, or choose one.")


def test_the_name_s_rule_is_stated_beside_it_and_in_the_browser_s_own_message(page: Page) -> None:
    rule = "lower-case letters, digits, dots, dashes and underscores, first a letter or digit"
    name = page.get_by_label("Name")
    expect(page.locator("label", has_text="Name")).to_contain_text(rule)
    expect(name).to_have_attribute("title", f"1 to 128 {rule}")
    for text in ("mood", "0.a-b_c", "Mood", "-mood", "my mood", "m" * 129):
        name.fill(text)
        assert name.evaluate("input => input.checkValidity()") == is_name(text), text

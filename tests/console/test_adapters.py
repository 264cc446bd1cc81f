"""The console lists adapters, shows one, promotes and rolls back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from rootstock.adapters.bundle import Limits
from rootstock.adapters.home.bulk_import import import_bundles
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.composition.demo_adapters import DEMO
from tests.console.browsing import Visit
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter


@pytest.fixture(autouse=True)
def mood_at_2(client: httpx.Client) -> None:
    assert client.put("/v1/adapters/mood/aliases/live", json={"version": 2}).status_code == 200


def test_the_list_shows_each_adapter_and_a_search_narrows_it(console: Page) -> None:
    rows = console.locator("tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.filter(has_text="review-sentiment")).to_contain_text("text-classification")
    console.get_by_label("Search adapters by name").fill("ent")
    expect(rows).to_have_count(2)
    expect(console.locator("tbody")).to_contain_text("entities")
    console.get_by_label("Search adapters by name").fill("no such name")
    expect(console.get_by_text("No adapter has “no such name” in its name.")).to_be_visible()


def test_an_adapter_shows_versions_labels_figures_card_and_events(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/adapters/review-sentiment")
    expect(page.get_by_role("region", name="Versions")).to_contain_text("v1")
    facts = page.get_by_role("region", name="Version 1", exact=True)
    expect(facts).to_contain_text("lora")
    expect(facts).to_contain_text("sentence-transformers/all-MiniLM-L6-v2")
    expect(page.get_by_role("region", name="Labels")).to_contain_text("neutral")
    evaluation = page.get_by_role("region", name="Evaluation")
    expect(evaluation.get_by_role("row", name="accuracy")).to_contain_text("0.88")
    expect(page.get_by_role("heading", name="Held-out figures")).to_be_visible()
    expect(page.get_by_role("region", name="Events")).to_contain_text("v1 published")


def test_an_adapter_shows_the_shares_of_its_split_until_the_split_ends(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    path = "/v1/adapters/mood/aliases/live/split"
    assert client.put(path, json={"candidates": {"1": 12.5}}).status_code == 200
    page = visit().open("/#/adapters/mood")
    expect(page.locator(".badges").first).to_contain_text("live → v2")
    expect(page.locator(".badges").first).to_contain_text("live: 12.5 % → v1")
    assert client.delete(path).status_code == 200
    page.reload()
    expect(page.locator(".badges").first).to_contain_text("live → v2")
    expect(page.locator(".badges").first).not_to_contain_text("%")


def test_an_adapter_shows_its_shadow_and_its_rule(visit: Callable[..., Visit], client: httpx.Client) -> None:
    assert client.put("/v1/adapters/mood/shadow", json={"version": 1, "percent": 20}).status_code == 200
    assert client.put("/v1/adapters/mood/rollback-rule", json={"max_disagreement": 0.1}).status_code == 200
    try:
        badges = visit().open("/#/adapters/mood").locator(".badges").first
        expect(badges).to_contain_text("shadow: v1 20 %")
        expect(badges).to_contain_text("max disagreement 0.1")
    finally:
        client.delete("/v1/adapters/mood/shadow")
        client.delete("/v1/adapters/mood/rollback-rule")


def test_a_promotion_waits_for_a_confirmation_and_a_roll_back_undoes_it(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    dialog = page.get_by_role("dialog")
    sentence = "live of mood moves from version 2 to version 1; requests that arrive from then on get version 1."
    expect(dialog).to_contain_text(sentence)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert client.get("/v1/adapters/mood").json()["live"] == 2

    page.get_by_role("button", name="Promote version 1").click()
    dialog.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("status")).to_have_text("live of mood points to version 1.")
    expect(page.get_by_text("live → v1", exact=True).first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["live"] == 1

    page.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("live: version 1 → version 2")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_have_text("Version 2 of mood is live again.")
    expect(page.get_by_text("live → v2", exact=True).first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["live"] == 2
    expect(page.get_by_role("region", name="Events")).to_contain_text("rolled back to v2")
    expect(page.get_by_role("region", name="Events")).to_contain_text("live: v2 → v1")


def test_another_alias_can_be_promoted_too(visit: Callable[..., Visit], client: httpx.Client) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    page.get_by_label("Alias").fill("prod")
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.get_by_text("prod → v1").first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["aliases"]["prod"] == 1


def test_a_version_is_shown_before_it_is_promoted_by_mouse_and_by_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/adapters/mood")
    rows = page.get_by_role("region", name="Versions")
    expect(rows.locator("[aria-current]")).to_have_text("v2")
    rows.get_by_role("link", name="v1").click()
    expect(rows.locator("[aria-current]")).to_have_text("v1")
    expect(page.get_by_role("region", name="Version 1", exact=True)).to_contain_text("lora")
    expect(page.get_by_role("region", name="Labels of version 1")).to_contain_text("<img src=x onerror=")
    expect(page.get_by_role("region", name="Card of version 1")).to_contain_text("Title of the card")
    rows.get_by_role("link", name="v2").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Version 2", exact=True)).to_be_visible()
    assert page.url.endswith("#/adapters/mood?version=2")


def test_a_version_that_does_not_exist_shows_the_server_s_message(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    here = visit()
    page = here.open("/#/adapters/mood?version=99")
    message = client.get("/v1/adapters/mood/versions/99").json()["error"]["message"]
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_role("region", name="Versions")).to_contain_text("v2")
    here.expect_refusals()


def test_another_version_is_compared_with_the_live_one_in_the_playground(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("link", name="Compare version 1 with live").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("mood")
    expect(page.get_by_label("Compared model")).to_have_value("mood@1")


def test_a_roll_back_is_offered_only_if_the_registry_has_a_version_before(
    visit: Callable[..., Visit], client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    for kind in ("first", "second"):
        assert upload(client, "history", peft_saved[kind].zip(), foundation="default").status_code == 201
    page = visit().open("/#/adapters/history")
    back = page.get_by_role("button", name="Roll back")
    expect(back).to_be_enabled()
    assert client.post("/v1/adapters/history/rollback").json()["version"] == 1
    page.reload()
    expect(back).to_be_disabled()
    expect(back).to_have_attribute("title", "The history of live holds no version before version 1.")
    assert client.post("/v1/adapters/history/rollback").status_code == 409
    client.put("/v1/adapters/history/aliases/live", json={"version": 2})
    assert client.delete("/v1/adapters/history/versions/1").status_code == 204
    page.reload()
    expect(back).to_be_disabled()
    assert client.post("/v1/adapters/history/rollback").status_code == 409
    assert client.delete("/v1/adapters/history").status_code == 204


def test_the_live_version_is_promoted_only_under_another_alias(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 2").click()
    dialog = page.get_by_role("dialog")
    alias = dialog.get_by_label("Alias")
    expect(alias).to_have_value("")
    alias.fill("live")
    expect(dialog).to_contain_text("live of mood points to version 2 already; give another alias.")
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog).to_be_visible()
    alias.fill("stable")
    expect(dialog).to_contain_text("stable of mood moves from no version to version 2; requests for mood@stable")
    dialog.get_by_role("button", name="Promote").click()
    expect(page.get_by_text("stable → v2").first).to_be_visible()
    client.put("/v1/adapters/mood/aliases/stable", json={"version": 1})


@pytest.mark.parametrize(
    ("alias", "valid"), [("Prod.2_a-b", True), ("12", False), ("a b", False), ("a" * 65, False)]
)
def test_the_field_of_an_alias_accepts_what_the_server_accepts(
    visit: Callable[..., Visit], client: httpx.Client, alias: str, valid: bool
) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    field = page.get_by_label("Alias")
    field.fill(alias)
    assert field.evaluate("one => one.checkValidity()") == valid
    answer = client.put(f"/v1/adapters/mood/aliases/{alias}", json={"version": 1})
    assert (answer.status_code == 200) == valid
    if not valid:
        assert (field.get_attribute("title") or "none") in answer.json()["error"]["message"]


def test_a_hostile_card_and_hostile_labels_are_shown_as_text(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    client.put("/v1/adapters/mood/aliases/live", json={"version": 1})
    page = visit().open("/#/adapters/mood")
    card = page.locator("article.card")
    expect(card.get_by_role("heading", name="Title of the card")).to_be_visible()
    expect(card.locator("img, script")).to_have_count(0)
    assert card.locator("a").evaluate_all("links => links.map(link => link.href)") == [
        "https://elsewhere.example/"
    ]
    expect(page.get_by_role("region", name="Labels")).to_contain_text("<img src=x onerror=")
    assert page.title() == "mood · Rootstock"


def test_an_unknown_adapter_shows_the_server_s_message(visit: Callable[..., Visit], client: httpx.Client) -> None:
    here = visit()
    page = here.open("/#/adapters/nobody")
    expect(page.get_by_role("alert")).to_contain_text(
        client.get("/v1/adapters/nobody").json()["error"]["message"]
    )
    here.expect_refusals()


def test_the_events_of_all_adapters_are_listed(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/events")
    expect(page.locator("tbody tr").filter(has_text="embedder")).to_contain_text(["live → v1", "v1 published"])


def test_a_version_s_bundle_is_saved_as_a_file(
    visit: Callable[..., Visit], client: httpx.Client, server: RunningServer
) -> None:
    page = visit().open("/#/adapters/mood")
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download version 1").click()
    saved = begun.value
    assert saved.suggested_filename == "mood-1.zip"
    assert saved.path().read_bytes() == client.get("/v1/adapters/mood/versions/1/bundle").content


def test_a_golden_set_is_shown_as_passed_as_not_replayed_or_as_absent(
    visit: Callable[..., Visit],
    serve: Callable[..., RunningServer],
    new_home: Callable[[], Path],
    spec: FoundationSpec,
    peft_saved: dict[str, PeftAdapter],
) -> None:
    home = new_home()
    list(import_bundles([DEMO / "support-intents.zip"], home, spec, Limits()))
    running = serve(home=home, threads=1)
    with running.client() as client:
        assert upload(client, "passed", (DEMO / "review-sentiment.zip").read_bytes()).status_code == 201
        assert upload(client, "absent", peft_saved["second"].zip()).status_code == 201
    page = visit(running.url).open()
    for name, sentence in (
        ("support-intents", "golden set not replayed"),
        ("passed", "golden inputs, differ by at most"),
        ("absent", "no golden set"),
    ):
        page.goto(f"{running.url}/#/adapters/{name}")
        expect(page.get_by_role("region", name="Versions")).to_contain_text(sentence)

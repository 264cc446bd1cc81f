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
from rootstock.service.composition import DEMO
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


def test_a_promotion_waits_for_a_confirmation_and_a_roll_back_undoes_it(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Version 2 is live now.")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert client.get("/v1/adapters/mood").json()["live"] == 2

    page.get_by_role("button", name="Promote version 1").click()
    dialog.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("status")).to_have_text("live of mood points to version 1.")
    expect(page.get_by_text("live → v1", exact=True).first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["live"] == 1

    page.get_by_role("button", name="Roll back").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("status")).to_have_text("Version 2 of mood is live again.")
    expect(page.get_by_text("live → v2", exact=True).first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["live"] == 2
    expect(page.get_by_role("region", name="Events")).to_contain_text("rolled back to v2")


def test_another_alias_can_be_promoted_too(visit: Callable[..., Visit], client: httpx.Client) -> None:
    page = visit().open("/#/adapters/mood")
    page.get_by_role("button", name="Promote version 1").click()
    page.get_by_label("Alias").fill("prod")
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.get_by_text("prod → v1").first).to_be_visible()
    assert client.get("/v1/adapters/mood").json()["aliases"] == {"live": 2, "prod": 1}


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

"""The console shows the figures of a manifest, also of a strange one."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

MANY = 5_000
SHOWN = 200


def evaluation(page: Page, manifest: dict[str, Any]) -> Locator:
    """Return a panel with the figures of an evaluation."""
    page.evaluate(
        """async (manifest) => {
            const { evaluation } = await import("./console/assets/views/evaluation.js");
            const { panel } = await import("./console/assets/dom.js");
            document.getElementById("main").replaceChildren(panel("Evaluation", null, ...evaluation(manifest)));
        }""",
        manifest,
    )
    return page.get_by_role("region", name="Evaluation")


def test_of_many_figures_the_first_are_shown_and_the_rest_is_counted(console: Page) -> None:
    many = {f"f{i}": i for i in range(MANY)}
    shown = evaluation(console, {"adapter": {**many, "labels": many}})
    tables = shown.locator("table")
    expect(tables.first.locator("tbody tr")).to_have_count(SHOWN)
    expect(tables.last.locator("tbody tr")).to_have_count(SHOWN)
    expect(shown.get_by_text("4,800 more figures are in the bundle's manifest.")).to_have_count(2)
    expect(shown.locator("summary")).to_have_text("5,000 figures of parts")


def test_of_many_baselines_the_first_are_shown_and_the_rest_is_counted(console: Page) -> None:
    shown = evaluation(console, {"adapter": {"f1": 0.5}, "baselines": {f"b{i}": {"f1": i} for i in range(20)}})
    expect(shown.locator("th")).to_have_text(["Figure", "this adapter", *(f"b{i}" for i in range(8))])
    expect(shown).to_contain_text("12 more baselines are in the bundle's manifest.")


def test_a_baseline_of_any_name_stands_beside_the_adapter(console: Page) -> None:
    baselines = {"this_adapter": {"f1": 0.1}, "constructor": {"f1": 0.2}}
    shown = evaluation(console, {"adapter": {"f1": 0.9}, "baselines": baselines})
    expect(shown.locator("td")).to_have_text(["f1", "0.9", "0.1", "0.2"])


def test_a_figure_is_of_a_part_if_it_is_inside_an_object(console: Page) -> None:
    adapter = {"DATE": {"f1": 0.3}, "DATE accuracy": 0.7, "macro_f1": 0.8}
    shown = evaluation(console, {"adapter": adapter, "intervals": {"macro_f1": [0.75, 0.85]}})
    expect(shown.locator("table").first.locator("td")).to_have_text(
        ["DATE accuracy", "0.7", "macro f1", "0.8 (0.75–0.85)"]
    )
    expect(shown.locator("details")).to_contain_text("1 figure of parts")
    expect(shown.locator("details td")).to_have_text(["DATE f1", "0.3"])


def test_figures_of_parts_alone_are_shown_too(console: Page) -> None:
    shown = evaluation(console, {"adapter": {"DATE": {"f1": 0.3}}})
    expect(shown.locator("details td").last).to_have_text("0.3")
    expect(shown.get_by_text("The manifest states no numbers.")).to_have_count(0)

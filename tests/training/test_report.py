"""Reports: the verdict for each outcome, sections by key, and names from the data that stay text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rootstock.training.report.recommendation import judge
from rootstock.training.report.report import render_html, render_markdown, write_report
from tests.training.example_metrics import example_entity_metrics, example_metrics

OPTIONAL = {
    "choice": "Choice of the method",
    "mistakes": "Misclassified rows",
    "calibration": "Calibration",
    "out_of_scope": "Out of scope",
    "fairness": "By group",
    "seeds": "Seeds",
    "learning_curve": "Learning curve",
    "epochs": "Training",
    "cost": "Cost",
    "provenance": "Provenance",
}


class _Page(HTMLParser):
    """The headings, links and opened elements of a page; a browser's view of it, not ours."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._inside == "h2" and data.strip():
            self.titles.append(data.strip())


def _with(score: float, p_value: float | None = None, **keys: Any) -> dict[str, Any]:
    metrics = {**example_metrics(), **keys}
    metrics["test"]["adapter"]["macro_f1"] = score
    metrics["test"]["baselines"]["head_only"]["macro_f1"] = 0.9
    if p_value is None:
        del metrics["test"]["comparison"], metrics["choice"]
    else:
        metrics["test"]["comparison"]["head_only"]["p_value"] = p_value
    return metrics


@pytest.mark.parametrize(
    ("metrics", "tone", "headline"),
    [
        (_with(0.95, 0.01), "good", "Better than a head alone"),
        (_with(0.95, 0.2), "doubt", "chance may explain"),
        (_with(0.95), "doubt", "not tested against chance"),
        (_with(0.9, 0.01), "doubt", "No better than a head alone"),
        (_with(0.89, 0.9), "bad", "Do not publish"),
        (_with(0.9, 0.5, method="head_only"), "good", "no adapter was shown to be better"),
    ],
)
def test_the_verdict_follows_the_head_alone_and_the_paired_test(
    metrics: dict[str, Any], tone: str, headline: str
) -> None:
    verdict = judge(metrics)
    assert verdict.tone == tone
    assert headline in verdict.headline


def test_without_a_head_only_baseline_the_verdict_is_in_doubt() -> None:
    metrics = example_entity_metrics()
    del metrics["test"]["baselines"]
    assert judge(metrics).tone == "doubt"
    assert "unknown" in judge(metrics).headline


def test_without_a_test_on_test_rows_the_choice_s_own_test_counts() -> None:
    metrics = example_metrics()
    del metrics["test"]["comparison"]
    verdict = judge(metrics)
    assert verdict.tone == "good"
    assert any("on validation rows it wins 12 and loses 2: p = 0.0037" in reason for reason in verdict.reasons)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full report's folder, which holds what the writer said it wrote."""
    folder = tmp_path_factory.mktemp("report")
    written = write_report(example_metrics(), folder)
    assert set(written) == {path for path in folder.rglob("*") if path.is_file()}
    return folder


def test_both_pages_hold_every_section_in_the_same_order(folder: Path) -> None:
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    titles = _Page((folder / "report.html").read_text(encoding="utf-8")).titles
    assert titles == re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert set(OPTIONAL.values()) <= set(titles)
    for name in re.findall(r"\]\((.*?)\)", markdown):
        assert (folder / name).is_file()


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_section_is_absent_where_its_key_is(key: str) -> None:
    metrics = example_metrics()
    del metrics[key]
    titles = _Page(render_html(metrics, {})).titles
    assert OPTIONAL[key] not in titles
    assert set(OPTIONAL.values()) - {OPTIONAL[key]} <= set(titles)


def test_the_least_metrics_make_a_report() -> None:
    metrics = {
        "name": "x",
        "task": "text-classification",
        "labels": ["a", "b"],
        "rows": {"train": 8, "validation": 2, "test": 2},
        "test": {"split": "test", "adapter": {"rows": 2, "accuracy": 0.5, "macro_f1": 0.5}},
    }
    assert _Page(render_html(metrics, {})).titles == ["Adapter and baselines"]
    assert "| adapter | 50.0 % | 50.0 % |" in render_markdown(metrics, {})


def test_the_html_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    page = _Page((folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe"}


def test_names_from_the_data_stay_text_in_both_pages() -> None:
    metrics = example_entity_metrics()
    groups = metrics["test"]["adapter"]["entities"]
    groups["<script>alert(1)</script>"] = groups["a|b\n*c* _d_ [e](f)"] = groups["person"]
    assert "script" not in _Page(render_html(metrics, {})).tags
    markdown = render_markdown(metrics, {})
    assert r"| \<script\>alert(1)\</script\> |" in markdown
    assert r"| a\|b \*c\* \_d\_ \[e\](f) |" in markdown


def test_a_p_value_that_rounds_to_zero_is_shown_as_a_bound() -> None:
    assert any("p < 0.0001" in reason for reason in judge(_with(0.95, 0.0)).reasons)


def test_the_weakest_of_very_many_labels_are_listed_and_the_rest_counted() -> None:
    metrics = example_metrics()
    rates = metrics["test"]["adapter"]["labels"]["order"]
    metrics["test"]["adapter"]["labels"] = {f"label {i}": {**rates, "f1": i / 200} for i in range(150)}
    markdown = render_markdown(metrics, {})
    assert "The weakest 60 of 150" in markdown
    assert "| label 59 |" in markdown
    assert "| label 60 |" not in markdown

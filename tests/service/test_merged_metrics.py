"""Pages of metrics become one that Prometheus's own parser reads as all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rootstock.service.telemetry.merged_metrics import merged_metrics
from rootstock.service.telemetry.metrics import Metrics

# Also what the format escapes, and what looks like another line, a brace or the end of a label.
TEXTS = st.text(st.sampled_from('ab \\"\n{}#,=é'), max_size=8)
VALUES = st.floats(allow_nan=False) | st.just(math.inf)


def page(gauges: Mapping[str, float], seen: list[float], plain: float) -> str:
    registry = CollectorRegistry()
    gauge = Gauge("rootstock_gauge", 'About "it"\nin two lines \\ # HELP no', ["adapter"], registry=registry)
    for adapter, value in gauges.items():
        gauge.labels(adapter).set(value)
    Gauge("rootstock_plain", "Without labels", registry=registry).set(plain)
    Counter("rootstock_done", "", registry=registry).inc(3)
    histogram = Histogram("rootstock_seconds", "A histogram", ["stage"], registry=registry, buckets=(1, 2))
    for value in seen:
        histogram.labels("queue").observe(value)
    return generate_latest(registry).decode()


def series(text: str, **added: str) -> list[tuple[object, ...]]:
    """Return what the parser reads: each sample with its family, sorted."""
    found: list[tuple[object, ...]] = []
    for family in text_string_to_metric_families(text):
        about = (family.name, family.type, family.documentation)
        found += [
            (*about, sample.name, sorted({**sample.labels, **added}.items()), sample.value)
            for sample in family.samples
        ]
    return sorted(found)


PAGES = st.builds(
    page, st.dictionaries(TEXTS, VALUES, max_size=3), st.lists(st.floats(0, 3), max_size=3), plain=VALUES
)


@given(st.dictionaries(TEXTS, PAGES, max_size=3))
def test_the_merged_page_has_the_series_of_each_page_with_its_name(pages: dict[str, str]) -> None:
    expected = sorted(one for name, text in pages.items() for one in series(text, replica=name))
    assert series(merged_metrics(pages, "replica")) == expected


def test_a_family_that_two_pages_have_stands_once() -> None:
    merged = merged_metrics({"0": page({}, [], 1), "1": page({"a": 2}, [1.5], 3)}, "process")
    heads = [line for line in merged.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads)) > 3
    families = [family.name for family in text_string_to_metric_families(merged)]
    assert len(families) == len(set(families))


@pytest.mark.parametrize("to_operator", [True, False])
def test_the_page_of_a_server_is_merged_whole(to_operator: bool) -> None:
    text = Metrics().render(to_operator).decode()
    merged = merged_metrics({"0": text, "1": text}, "process")
    assert series(merged) == sorted([*series(text, process="0"), *series(text, process="1")])


def test_no_pages_make_an_empty_page() -> None:
    assert merged_metrics({}, "process") == ""
    assert merged_metrics({"0": ""}, "process") == ""

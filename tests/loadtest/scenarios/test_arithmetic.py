"""Percentiles, rates, the knee, the slope, the sizes of texts: the arithmetic of the reports."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.load.record import CALLER, Record
from rootstock.loadtest.load.samples import ResourceSample, between, parse
from rootstock.loadtest.load.summary import percentile, summarize
from rootstock.loadtest.load.texts import real_texts
from rootstock.loadtest.load.timeline import timeline
from rootstock.loadtest.load.trial import Trial
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.knee import Knee, LoadStage, knee
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.loadtest.measure.slope import slopes
from rootstock.loadtest.scenarios.ramp import _goodput_row
from rootstock.service.engine.core.observer import BatchStats
from rootstock.service.telemetry.metrics import Metrics

floats = st.floats(0, 1e6)


@given(st.lists(floats, min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_one_of_the_values_and_enough_lie_below(values: list[float], percent: float) -> None:
    figures = percentile(values, percent)
    assert figures in values
    assert sum(value <= figures for value in values) >= percent / 100 * len(values) * (1 - 1e-9)


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 50))


def record(at: float, latency: float, verdict: str = "ok", inputs: int = 1) -> Record:
    return Record(0, CALLER, "predict", at, latency, latency, inputs, verdict)


def test_a_late_answer_counts_in_the_latency_and_not_in_the_goodput() -> None:
    figures = summarize([record(10.1, 0.2, inputs=8), record(10.2, 5.0, inputs=8)], 10.0, 1.0)
    assert figures.counts["ok"] == 2
    assert figures.latency_ms[99] == 5000
    assert (figures.offered_s, figures.goodput_s, figures.inputs_s) == (2, 1, 8)


def test_refusals_and_faults_are_no_goodput_and_have_no_latency() -> None:
    answers = [record(0.1, 0.1), record(0.2, 9.0, "refused"), record(0.3, 9.0, "stale")]
    figures = summarize(answers, 0.0, 1.0)
    assert (figures.goodput_s, figures.faults, figures.latency_ms[99]) == (1, 1, 100)
    assert figures.to_json()["p99_ms"] == 100


def test_the_timeline_holds_every_request_where_it_was_to_be_sent_and_every_answer_where_it_came() -> None:
    rows = timeline([record(100.5, 2.0), record(101.5, 0.1)], [], ["only"])
    assert [(row["second"], row["ok"], row["goodput_s"]) for row in rows] == [(0, 1, 0), (1, 1, 1), (2, 0, 1)]


def streamed(at: float, first: float, latency: float, tokens: int) -> Record:
    return Record(0, CALLER, "chat", at, latency, latency, 1, "ok", first=first, tokens=tokens)


def test_tokens_count_in_the_second_in_which_they_came() -> None:
    # The first at 0.5 s, then one each quarter of a second until 2.5 s.
    figures = [summarize([streamed(0.0, 0.5, 2.5, 9)], float(second), 1.0).streams for second in range(4)]
    assert [one and one.tokens_s for one in figures] == [3, 4, 2, 0]
    assert figures[0] is not None
    assert figures[0].first_ms[50] == 500
    assert figures[0].token_ms[99] == pytest.approx(250)


def test_the_timeline_shows_the_seconds_in_which_an_answer_only_goes_on() -> None:
    rows = timeline([streamed(0.0, 0.5, 3.5, 13)], [], ["only"])
    assert [row["tokens_s"] for row in rows] == [3, 4, 4, 2]


def test_an_answer_of_one_token_has_no_time_per_further_token() -> None:
    figures = summarize([streamed(0.0, 0.5, 0.5, 1)], 0.0, 1.0).to_json()
    assert (figures["token_p50_ms"], figures["tokens_s"], figures["first_p50_ms"]) == (None, 1, 500)


def test_answers_that_are_no_streams_have_no_figures_of_tokens() -> None:
    assert "tokens_s" not in summarize([record(0.1, 0.1)], 0.0, 1.0).to_json()


def test_the_knee_is_the_last_load_that_was_kept_up_with() -> None:
    stages = [LoadStage(10, 10), LoadStage(20, 19.5), LoadStage(40, 30), LoadStage(80, 25), LoadStage(30, 29)]
    assert knee(stages) == Knee(offered=30, peak=30)


def test_a_stage_that_keeps_up_by_chance_beyond_the_knee_does_not_move_it() -> None:
    assert knee([LoadStage(10, 10), LoadStage(20, 12), LoadStage(30, 30)]).offered == 10


@given(st.lists(st.builds(LoadStage, st.floats(1, 1e3), st.floats(0, 1e3)), min_size=1))
def test_the_knee_is_a_load_that_was_offered_or_none(stages: list[LoadStage]) -> None:
    assert knee(stages).offered in {0.0, *(stage.offered for stage in stages)}
    assert knee(stages).peak == max(stage.goodput for stage in stages)


def noisy(slope: float, count: int = 600) -> Sequence[float]:
    picked = random.Random(1)
    return [100 + slope * i / count + picked.gauss(0, 1) for i in range(count)]


def test_a_series_that_climbs_is_told_from_one_that_does_not() -> None:
    times = [i / 600 for i in range(600)]
    flat, steep = (median_interval(slopes(times, noisy(slope))) for slope in (0.0, 20.0))
    assert flat.low <= 0 <= flat.high
    assert steep.low > 0
    assert steep.median == pytest.approx(20, abs=1.5)


def test_a_climb_during_the_warm_up_is_no_climb() -> None:
    times = [float(i) for i in range(100)]
    values = [min(i, 15) for i in range(100)]
    assert median_interval(slopes(times, values)).median == 0


def test_too_few_samples_have_no_slope() -> None:
    with pytest.raises(ValueError, match="at least four"):
        slopes([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])


def test_what_happened_between_two_expositions_of_the_server_is_told() -> None:
    metrics = Metrics()
    metrics.batch(BatchStats(100, 7, 10, 10, 1.0))
    first = ResourceSample(0.0, parse(metrics.render(True).decode()), 200.0)
    metrics.batch(BatchStats(8, 2, 80, 100, 0.05, [("high", 0.01)]))
    metrics.batch(BatchStats(4, 1, 60, 100, 0.03, [("low", 0.03)]))
    metrics.loaded("memory", 0.1, True)
    for _ in range(3):
        metrics.loaded("slot", 0.1, True)
    for _ in range(2):
        metrics.evicted("slot")
    figures = between(first, ResourceSample(1.0, parse(metrics.render(True).decode()), 210.0))
    assert (figures["batch_rows"], figures["batch_adapters"]) == (6, 1.5)
    assert figures["batch_ms"] == pytest.approx(40)
    assert figures["waited_ms"] == pytest.approx(20)
    assert figures["padding_share"] == pytest.approx(60 / 200)
    assert (figures["loads"], figures["evictions"], figures["resident_mb"]) == (3, 2, 210)
    # The gauges of an engine come with the engine.
    assert {name for name, value in figures.items() if value is None} == {"slots_used", "waiting", "sequences"}


def test_metrics_that_are_not_there_are_nothing_rather_than_a_fault() -> None:
    figures = between(ResourceSample(0.0, {}, 1.0), ResourceSample(1.0, {}, 1.0))
    assert {name for name, value in figures.items() if value is not None} == {"resident_mb"}


def test_texts_have_short_and_long_ones_are_distinct_and_the_same_each_time(spec: FoundationSpec) -> None:
    texts = real_texts(120)
    assert texts == real_texts(120)
    assert len(set(texts)) == 120
    words = np.array([len(text.split()) for text in texts])
    assert np.median(words) < 20 < words.max() < spec.max_tokens


def test_without_the_labelled_data_the_demo_texts_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: str) -> None:
    monkeypatch.setenv("ROOTSTOCK_DATA", str(tmp_path))
    assert len(real_texts(64)) == 64


def windows(latency_s: float) -> Trial:
    """A ramp's pair of windows of one second, with one answer each."""
    phases = [
        {"name": name, "start": float(i), "end": i + 1.0, "seconds": 1.0} for i, name in enumerate(("1×", "3×"))
    ]
    records = [Record(i, CALLER, "predict", float(i), latency_s, latency_s, 8, "ok") for i in range(2)]
    return Trial(records, phases, [])


def test_a_ramp_without_an_answer_in_time_is_not_run_rather_than_a_division_by_zero() -> None:
    row = _goodput_row(windows(0.5))
    assert isinstance(row, BenchmarkRow)
    assert row.figures == [1.0]
    late = _goodput_row(windows(5.0))
    assert isinstance(late, NotRun)
    assert "no right answer came within a window" in late.reason

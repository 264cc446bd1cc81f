"""Intervals, held to scipy's bootstrap; the spread to the statistics module."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, quantile_test
from sklearn.metrics import f1_score

from rootstock.training.metrics.counts import label_counts, macro_f1
from rootstock.training.metrics.intervals import (
    entity_intervals,
    interval,
    label_intervals,
    order_statistic_interval,
    spread,
    wilson_interval,
)


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(5)
    truth = draw.integers(0, 4, 300)
    return truth, np.where(draw.random(300) < 0.85, truth, draw.integers(0, 4, 300))


def scipys_wilson(hits: int, rows: int) -> list[float]:
    return list(binomtest(hits, rows).proportion_ci(0.95, method="wilson"))


def test_accuracy_s_interval_is_scipys_wilson_interval(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = answers
    ours = label_intervals(truth.tolist(), predicted.tolist(), 4)["accuracy"]
    assert ours == pytest.approx(scipys_wilson(int((truth == predicted).sum()), len(truth)), abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_the_interval_of_any_share_is_scipys(hits_of_rows: tuple[int, int]) -> None:
    hits, rows = hits_of_rows
    assert wilson_interval(hits / rows, rows) == pytest.approx(scipys_wilson(hits, rows), abs=1e-4)


def test_twenty_of_twenty_is_not_certainty() -> None:
    assert wilson_interval(1.0, 20) == [0.8389, 1.0]
    assert wilson_interval(0.0, 20) == [0.0, 0.1611]


def test_macro_f1_s_interval_is_scipys_over_scikit_learns_score(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = answers
    theirs = bootstrap(
        (truth, predicted),
        lambda t, p: f1_score(t, p, average="macro"),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=500,
        rng=np.random.default_rng(0),
    )
    ours = interval(label_counts(truth.tolist(), predicted.tolist(), 4), macro_f1)
    assert ours == pytest.approx(list(theirs.confidence_interval), abs=0.01)


def test_the_seed_fixes_the_interval_and_another_seed_moves_it_a_little() -> None:
    truth, predicted = (
        [["B-A", "O"], ["O", "B-A"], ["B-B", "I-B"]] * 30,
        [["B-A", "O"], ["O", "O"], ["B-B", "O"]] * 30,
    )
    first, again, other = (entity_intervals(truth, predicted, seed)["f1"] for seed in (0, 0, 1))
    assert first == again != other
    # 30 of 30 + 60 found, 90 true.
    assert first[0] < 2 * 30 / 150 < first[1]


def test_a_test_set_with_no_mistake_or_with_no_hit_has_an_interval_of_the_width_of_its_rows() -> None:
    right = list(range(4)) * 5
    assert label_intervals(right, right, 4) == {"accuracy": [0.8389, 1.0], "macro_f1": [0.8389, 1.0]}
    wrong = [(label + 1) % 4 for label in right]
    assert label_intervals(right, wrong, 4) == {"accuracy": [0.0, 0.1611], "macro_f1": [0.0, 0.1611]}
    sentences = [["B-A", "O"]] * 20
    assert entity_intervals(sentences, sentences) == {"f1": [0.8389, 1.0]}


def test_a_bootstrap_that_cannot_vary_gives_a_wide_interval_or_none() -> None:
    # One sentence with one of two entities: F1 2/3.
    low, high = entity_intervals([["B-A", "B-A"]], [["B-A", "O"]])["f1"]
    assert low < 0.2 < 2 / 3 < high < 1
    counts = label_counts([0, 0], [0, 0], 1)
    assert interval(counts, macro_f1, most=None) is None
    assert interval(counts, lambda sums: 100 * macro_f1(sums), most=100.0) == pytest.approx([34.24, 100.0])


def test_an_interval_needs_rows() -> None:
    with pytest.raises(ValueError, match="no rows"):
        label_intervals([], [], 3)


def test_the_spread_over_seeds_is_the_sample_mean_and_deviation() -> None:
    scores = [0.91, 0.93, 0.89, 0.95]
    assert spread(scores).mean == pytest.approx(statistics.mean(scores))
    assert spread(scores).sd == pytest.approx(statistics.stdev(scores))
    assert spread([0.9]).to_json() == {"mean": 0.9, "sd": None}
    with pytest.raises(ValueError, match="no scores"):
        spread([])


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=60, unique=True))
def test_of_six_measurements_or_more_the_interval_is_scipys_of_the_median(values: list[float]) -> None:
    ours = order_statistic_interval(values)
    theirs = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.median == statistics.median(values)
    assert ours.coverage >= 0.95


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375)])
def test_under_six_measurements_the_interval_is_their_range_and_states_that_it_covers_less_than_95_percent(
    count: int, coverage: float
) -> None:
    values = [1.0 + i**2 for i in range(count)]
    ours = order_statistic_interval(values)
    assert (ours.low, ours.high, ours.coverage) == (values[0], values[-1], coverage)


def test_as_many_of_such_intervals_hold_the_true_median_as_they_state() -> None:
    draws = np.random.default_rng(0).exponential(size=(4000, 5))
    intervals = [order_statistic_interval(draw.tolist()) for draw in draws]
    held = np.mean([i.low <= np.log(2) <= i.high for i in intervals])
    assert held == pytest.approx(intervals[0].coverage, abs=0.02)


def test_a_median_needs_a_measurement() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        order_statistic_interval([])

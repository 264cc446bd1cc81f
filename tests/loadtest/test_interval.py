"""The median's interval is scipy's, and holds the true median as often as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rootstock.loadtest.measure.interval import CONFIDENCE, median_interval


@pytest.mark.parametrize("count", [6, 7, 9, 10, 20, 29, 30, 31, 60, 101, 1023, 1500])
def test_it_is_the_interval_of_scipys_quantile_test(count: int) -> None:
    values = np.random.default_rng(count).lognormal(size=count)
    ours = median_interval(values.tolist())
    theirs = stats.quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.median == np.median(values)


@pytest.mark.parametrize("count", [6, 30, 31])
def test_its_coverage_is_the_binomials(count: int) -> None:
    interval = median_interval(list(range(count)))
    cut = int(interval.low)
    assert interval.coverage == pytest.approx(1 - 2 * stats.binom.cdf(cut, count, 0.5))
    assert interval.coverage >= CONFIDENCE


def test_it_holds_the_true_median_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).exponential(size=(4000, 30))
    intervals = [median_interval(sample.tolist()) for sample in samples]
    held = np.mean([i.low <= np.log(2) <= i.high for i in intervals])
    assert held == pytest.approx(intervals[0].coverage, abs=0.015)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_measurements_give_their_range_and_admit_it(count: int) -> None:
    interval = median_interval([float(i) for i in range(count)])
    assert (interval.low, interval.high) == (0.0, count - 1.0)
    assert interval.coverage < CONFIDENCE


def test_no_measurements_are_refused() -> None:
    with pytest.raises(ValueError, match="no measurements"):
        median_interval([])


def test_no_other_module_computes_a_median_in_its_own_way() -> None:
    folder = Path(__file__).parents[2] / "loadtest"
    other_ways = re.compile(
        r"\bstatistics\b|\bmedian\(|quantile|\[len\(\w+(\.\w+)*\) // 2\]|percentile\([^)]*\b50\)"
    )
    lines = {
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if other_ways.search(line)
    }
    assert {line.partition(":")[0] for line in lines} == {
        "measure/interval.py",
        # The pair whose sides are shown beside the median.
        "measure/row.py",
        # Latencies of one window: wrk's own, and the generator's by `percentile`.
        "measure/wrk.py",
        "load/summary.py",
    }

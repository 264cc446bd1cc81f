"""Rollback rules on figures: when they judge, and what they find, against numpy and by property."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.adapters.registry.rollout_records import RollbackRule
from rootstock.service.rollout.judgement import (
    ComparisonFigures,
    VersionFigures,
    Violation,
    p95,
    violation,
)

NONE = ComparisonFigures()
SECONDS = st.lists(st.floats(0.0001, 100), max_size=60)
SHARES = st.none() | st.floats(0, 1)
RULES = st.builds(
    RollbackRule,
    min_requests=st.integers(1, 40),
    max_error_rate=SHARES,
    max_disagreement=SHARES,
    max_p95_ratio=st.none() | st.floats(1, 10),
)
FIGURES = st.builds(VersionFigures, SECONDS, st.integers(0, 40))
COMPARISONS = st.integers(0, 60).flatmap(
    lambda compared: st.builds(ComparisonFigures, st.just(compared), st.integers(0, compared))
)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200))
def test_p95_is_numpy_s_by_nearest_rank(seconds: list[float]) -> None:
    assert p95(seconds) == np.percentile(seconds, 95, method="inverted_cdf")


@given(RULES, FIGURES, FIGURES, COMPARISONS)
def test_a_violation_states_figures_over_a_limit_that_the_rule_has(
    rule: RollbackRule, judged: VersionFigures, incumbent: VersionFigures, comparison: ComparisonFigures
) -> None:
    found = violation(rule, judged, incumbent, comparison)
    if found is not None:
        assert found.measured > found.limit == getattr(rule, found.reason)
        assert found.requests >= rule.min_requests


@given(RULES, FIGURES, FIGURES, COMPARISONS)
def test_too_few_requests_are_never_judged(
    rule: RollbackRule, judged: VersionFigures, incumbent: VersionFigures, comparison: ComparisonFigures
) -> None:
    more = 1 + max(judged.requests, comparison.compared)
    assert violation(replace(rule, min_requests=more), judged, incumbent, comparison) is None


@given(RULES, SECONDS, COMPARISONS)
def test_a_version_that_equals_its_incumbent_breaks_no_limit(
    rule: RollbackRule, seconds: list[float], comparison: ComparisonFigures
) -> None:
    figures = VersionFigures(seconds)
    assert violation(rule, figures, figures, replace(comparison, differing=0)) is None


@given(RULES, FIGURES, FIGURES, COMPARISONS)
def test_a_looser_rule_finds_no_more(
    rule: RollbackRule, judged: VersionFigures, incumbent: VersionFigures, comparison: ComparisonFigures
) -> None:
    if violation(rule, judged, incumbent, comparison) is None:
        looser = replace(rule, max_error_rate=None, max_p95_ratio=rule.max_p95_ratio and 2 * rule.max_p95_ratio)
        assert violation(looser, judged, incumbent, comparison) is None


@pytest.mark.parametrize(
    ("rule", "figures", "comparison", "found"),
    [
        (
            RollbackRule(max_error_rate=0.05),
            VersionFigures([0.1] * 94, 6),
            NONE,
            Violation("max_error_rate", 0.06, 0.05, 100),
        ),
        (RollbackRule(max_error_rate=0.05), VersionFigures([0.1] * 95, 5), NONE, None),
        (
            RollbackRule(max_disagreement=0.1),
            VersionFigures(),
            ComparisonFigures(57, 23),
            Violation("max_disagreement", 23 / 57, 0.1, 57),
        ),
        (RollbackRule(max_disagreement=0.0), VersionFigures(), ComparisonFigures(50, 0), None),
        (
            RollbackRule(max_disagreement=0.0),
            VersionFigures(),
            ComparisonFigures(50, 1),
            Violation("max_disagreement", 0.02, 0.0, 50),
        ),
        (
            RollbackRule(max_p95_ratio=1.5),
            VersionFigures([0.2] * 50),
            NONE,
            Violation("max_p95_ratio", 2.0, 1.5, 50),
        ),
        (RollbackRule(max_p95_ratio=2.0), VersionFigures([0.2] * 50), NONE, None),
    ],
)
def test_a_limit_is_broken_above_it_and_not_at_it(
    rule: RollbackRule, figures: VersionFigures, comparison: ComparisonFigures, found: Violation | None
) -> None:
    assert violation(rule, figures, VersionFigures([0.1] * 50), comparison) == found


def test_the_ratio_of_p95_needs_enough_answers_of_the_incumbent() -> None:
    rule = RollbackRule(max_p95_ratio=1.5)
    assert violation(rule, VersionFigures([9.0] * 50), VersionFigures([0.1] * 49), NONE) is None

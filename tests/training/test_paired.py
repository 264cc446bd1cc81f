"""Paired tests, held to scipy's and to a published table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm

from rootstock.training.metrics.counts import accuracy, entity_counts, f1, label_counts
from rootstock.training.metrics.paired_test import mcnemar, paired_bootstrap


def _pair(both: int, wins: int, losses: int, neither: int = 0) -> tuple[np.ndarray, np.ndarray]:
    first = [True] * both + [False] * wins + [True] * losses + [False] * neither
    second = [True] * both + [True] * wins + [False] * losses + [False] * neither
    return np.array(first), np.array(second)


@pytest.mark.parametrize(("wins", "losses"), [(7, 1), (1, 7), (4, 4), (0, 3), (3, 0), (40, 22)])
def test_the_exact_test_is_scipys_binomial_test_on_the_rows_that_differ(wins: int, losses: int) -> None:
    first, second = _pair(30, wins, losses, 5)
    for ours, theirs in (("greater", "greater"), ("two-sided", "two-sided")):
        comparison = mcnemar(first, second, ours, mid_p=False)
        assert comparison.p_value == pytest.approx(binomtest(wins, wins + losses, 0.5, alternative=theirs).pvalue)
        assert (comparison.wins, comparison.losses) == (wins, losses)
        assert comparison.difference == pytest.approx((wins - losses) / len(first))


def test_the_published_airway_table_gives_the_published_p_values() -> None:
    # Fagerland, Lydersen and Laake 2013: 21 children, 1 and 7 pairs differ.
    first, second = _pair(1, 7, 1, 12)
    assert mcnemar(first, second, "two-sided", mid_p=False).p_value == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(first, second, "two-sided").p_value == pytest.approx(0.0391, abs=5e-5)
    assert mcnemar(first, second).p_value == pytest.approx(0.0391 / 2, abs=5e-5)


def test_models_that_are_right_on_the_same_rows_are_no_evidence() -> None:
    first, second = _pair(10, 0, 0, 3)
    assert mcnemar(first, second).p_value == 1
    assert mcnemar(first, second, "two-sided").p_value == 1
    counts = label_counts(np.ones(13, int), first.astype(int), 2)
    assert paired_bootstrap(counts, counts, accuracy).p_value == 1


def test_a_mid_p_value_is_at_most_one_and_under_equals_the_two_sides_agree() -> None:
    first, second = _pair(3, 4, 4)
    assert mcnemar(first, second).p_value == pytest.approx(0.5)
    # 1 - P(X = 4) / 2 of a binomial with 8 trials.
    assert mcnemar(first, second, "two-sided").p_value == pytest.approx(1 - 70 / 256 / 2)


def test_two_models_must_have_answered_the_same_rows() -> None:
    with pytest.raises(ValueError, match="here 3 and 2"):
        mcnemar([True] * 3, [True] * 2)
    with pytest.raises(ValueError, match="here 0 and 0"):
        mcnemar([], [])


def test_the_paired_bootstrap_of_accuracy_agrees_with_the_normal_approximation_and_scipys_bootstrap() -> None:
    first, second = _pair(300, 60, 38, 102)
    ones = np.ones(len(first), int)
    counts = [label_counts(ones, right.astype(int), 2) for right in (first, second)]
    comparison = paired_bootstrap(counts[0], counts[1], accuracy, resamples=4000)
    theirs = bootstrap(
        (second.astype(float), first.astype(float)),
        lambda b, a, axis: b.mean(axis) - a.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="basic",
        rng=np.random.default_rng(1),
    )
    assert comparison.difference == pytest.approx(22 / 500)
    assert comparison.p_value == pytest.approx(norm.sf(comparison.difference / theirs.standard_error), abs=0.006)
    assert (comparison.wins, comparison.losses) == (60, 38)
    two_sided = paired_bootstrap(counts[0], counts[1], accuracy, "two-sided", resamples=4000)
    assert two_sided.p_value == pytest.approx(2 * comparison.p_value, abs=0.01)
    worse = paired_bootstrap(counts[1], counts[0], accuracy)
    assert worse.p_value > 0.9


def test_a_better_tagger_wins_by_sentences_and_the_seed_fixes_the_p_value() -> None:
    truth = [["B-PER", "O"], ["B-LOC", "I-LOC"], ["O", "O"]] * 20
    worse = [["B-PER", "O"], ["B-LOC", "O"], ["O", "B-PER"]] * 20
    better = [["B-PER", "O"], ["B-LOC", "I-LOC"], ["O", "O"]] * 20
    first, second = entity_counts(truth, worse), entity_counts(truth, better)
    comparison = paired_bootstrap(first, second, f1, seed=3)
    assert (comparison.wins, comparison.losses) == (40, 0)
    assert comparison.p_value == pytest.approx(1 / 2001)
    assert comparison == paired_bootstrap(first, second, f1, seed=3)
    assert comparison.to_json()["test"] == "paired bootstrap of 2000 resamples, one-sided"

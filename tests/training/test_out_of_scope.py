"""Thresholds and figures of refusing, held to scikit-learn's and scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from rootstock.training.metrics.out_of_scope import choose_threshold, confidences, out_of_scope_figures


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.beta(8, 2, 300).round(3), draw.beta(4, 4, 120).round(3)


def test_the_threshold_has_the_best_balanced_accuracy_of_all(parts: tuple[np.ndarray, np.ndarray]) -> None:
    both, belongs = np.concatenate(parts), np.repeat([1, 0], [300, 120])
    chosen = balanced_accuracy_score(belongs, both >= choose_threshold(*parts))
    assert chosen == pytest.approx(max(balanced_accuracy_score(belongs, both >= t) for t in np.unique(both)))


def test_without_out_of_scope_rows_at_most_a_twentieth_is_refused(parts: tuple[np.ndarray, np.ndarray]) -> None:
    threshold = choose_threshold(parts[0])
    assert 0.03 < (parts[0] < threshold).mean() <= 0.05
    assert (np.array([0.5, 0.9]) >= choose_threshold(np.array([0.5, 0.9]))).all()


def test_scopes_that_no_threshold_can_tell_apart_are_all_answered() -> None:
    same = np.full(10, 0.8)
    assert choose_threshold(same, same) == 0.0
    with pytest.raises(ValueError, match="no in-scope"):
        choose_threshold(np.array([]))


def test_the_figures_are_scikit_learns(parts: tuple[np.ndarray, np.ndarray]) -> None:
    inside, outside = parts
    right = np.random.default_rng(1).random(300) < 0.9
    figures = out_of_scope_figures(0.6, inside, right, outside)
    refused = np.concatenate(parts) < 0.6
    foreign = np.repeat([0, 1], [300, 120])
    assert figures["recall"] == pytest.approx(recall_score(foreign, refused), abs=5e-5)
    assert figures["auroc"] == pytest.approx(roc_auc_score(1 - foreign, np.concatenate(parts)), abs=5e-5)
    assert figures["auroc"] == pytest.approx(mannwhitneyu(inside, outside).statistic / (300 * 120), abs=5e-5)
    assert figures["in_scope_kept"] == pytest.approx(1 - recall_score(1 - foreign, refused), abs=5e-5)
    assert figures["in_scope_accuracy"] == pytest.approx((right & (inside >= 0.6)).mean(), abs=5e-5)
    assert figures["rows"] == {"in_scope": 300, "out_of_scope": 120}


def test_without_out_of_scope_test_rows_nothing_is_said_of_them(parts: tuple[np.ndarray, np.ndarray]) -> None:
    figures = out_of_scope_figures(0.6, parts[0], np.ones(300, bool))
    assert set(figures) == {"threshold", "in_scope_kept", "in_scope_accuracy", "rows", "intervals"}
    assert set(figures["intervals"]) == {"in_scope_kept", "in_scope_accuracy"}


def test_a_row_as_sure_as_the_threshold_is_answered() -> None:
    figures = out_of_scope_figures(0.5, np.array([0.5, 0.4]), [True, True], np.array([0.5, 0.2]))
    assert (figures["in_scope_kept"], figures["recall"]) == (0.5, 0.5)


def test_confidence_is_the_largest_probability_after_the_temperature() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1]]))
    assert confidences(logits, 1.0) == pytest.approx([0.7])
    assert confidences(logits, 2.0)[0] < 0.7

"""Figures of labels that are numbers: those of scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, root_mean_squared_error

from rootstock.training.metrics.ordinal import figures_by_value, label_values, ordinal_figures
from rootstock.training.report.report import render_markdown
from tests.training.example_metrics import example_metrics

# The labels in id order are in the order of the alphabet, in which 10 comes before 2.
LABELS = ["1", "10", "2", "3", "4"]


@pytest.fixture(scope="module")
def answers() -> tuple[list[int], list[int]]:
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 5, 400)
    return truth.tolist(), np.where(draw.random(400) < 0.6, truth, draw.integers(0, 5, 400)).tolist()


def test_the_figures_are_those_of_scikit_learn_and_scipy(answers: tuple[list[int], list[int]]) -> None:
    values = label_values(LABELS)
    assert values == [1, 10, 2, 3, 4]
    ours = ordinal_figures(*answers, values)
    truth, predicted = (np.array([values[i] for i in ids]) for ids in answers)
    assert ours["rows"] == 400
    assert ours["mae"] == pytest.approx(mean_absolute_error(truth, predicted), abs=1e-4)
    assert ours["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted), abs=1e-4)
    assert ours["spearman"] == pytest.approx(spearmanr(truth, predicted).statistic, abs=1e-4)
    assert ours["quadratic_kappa"] == pytest.approx(
        cohen_kappa_score(truth, predicted, weights="quadratic"), abs=1e-4
    )


def test_the_interval_is_scipys_percentile_interval(answers: tuple[list[int], list[int]]) -> None:
    values = np.array(label_values(LABELS))
    truth, predicted = (values[ids] for ids in answers)
    theirs = bootstrap(
        (np.abs(truth - predicted),), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    )
    ours = ordinal_figures(*answers, values.tolist())["intervals"]["mae"]
    assert ours == pytest.approx(list(theirs.confidence_interval), abs=0.05)


def test_figures_without_a_meaning_are_left_out_and_no_mistake_gives_no_interval_of_nothing() -> None:
    one_answer = ordinal_figures([0, 1, 2, 2], [1, 1, 1, 1], [1, 2, 3])
    assert "spearman" not in one_answer
    assert one_answer["quadratic_kappa"] == 0
    right = ordinal_figures([0, 1, 2], [0, 1, 2], [1, 2, 3])
    assert (right["mae"], right["spearman"], right["quadratic_kappa"]) == (0, 1, 1)
    assert "mae" not in right["intervals"]


@pytest.mark.parametrize("labels", [["1", "2"], ["1", "2", "many"], ["1", "2", "nan"], ["1", "2", "1e3"]])
def test_labels_that_are_not_all_numbers_or_only_two_have_no_order(labels: list[str]) -> None:
    assert label_values(labels) is None


def test_the_report_shows_the_figures_of_adapter_and_head(answers: tuple[list[int], list[int]]) -> None:
    assert "Labels as numbers" not in render_markdown(example_metrics(), {})
    figures = ordinal_figures(*answers, [1, 10, 2, 3, 4])
    ordinal = {"adapter": figures, "head_only": {**figures, "mae": 2.5}}
    text = render_markdown({**example_metrics(), "ordinal": ordinal}, {})
    assert "## Labels as numbers" in text
    low, high = figures["intervals"]["mae"]
    assert f"| mean absolute error | {figures['mae']:.3f} ({low:.3f} to {high:.3f}) | 2.500" in text


def test_evaluate_states_the_figures_of_numbers_and_none_of_other_labels() -> None:
    assert figures_by_value([0, 1], [0, 1], ["a", "b"]) == {}
    stars = figures_by_value([0, 1, 2], [0, 1, 1], ["1", "2", "3"])["ordinal"]
    assert stars["mae"] == pytest.approx(1 / 3, abs=1e-4)

"""Figures, heads and gains of several labels and of numbers are those of scikit-learn, scipy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from rootstock.training.cli.model_commands import _figures_line
from rootstock.training.data.encoding import TokenRow
from rootstock.training.metrics.expected_gain import expected_gains
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.metrics.values.number_figures import figure_text
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.problems.problem import Problem
from rootstock.training.problems.problem_table import problem_of
from rootstock.training.problems.units import Units
from rootstock.training.report.card import _comparison

DRAW = np.random.default_rng(3)
FLAGS = (DRAW.random((120, 4)) < [0.5, 0.3, 0.1, 0.02]).astype(float)
FLAGS[0, 3] = 1.0
LOGITS = ((2 * FLAGS - 1) + 1.2 * DRAW.normal(size=FLAGS.shape)).astype(np.float32)
NUMBERS = 2000 + 7 * DRAW.normal(size=(120, 1))
ANSWERS = NUMBERS + 4 * DRAW.normal(size=(120, 1))
SETS: Problem = problem_of("multi_label_classification", "abcd")
NUMBER: Problem = problem_of("regression", ["stars"])


def _rows(values: np.ndarray) -> list[TokenRow]:
    return [TokenRow((1,), (), values=tuple(row)) for row in values]


def test_figures_of_label_sets_are_scikit_learns() -> None:
    figures = SETS.figures(list(LOGITS), _rows(FLAGS))
    answers = (1 / (1 + np.exp(-LOGITS)) >= 0.5).astype(int)
    expected = {
        "micro_f1": metrics.f1_score(FLAGS, answers, average="micro"),
        "macro_f1": metrics.f1_score(FLAGS, answers, average="macro"),
        "subset_accuracy": metrics.accuracy_score(FLAGS, answers),
        "lrap": metrics.label_ranking_average_precision_score(FLAGS, LOGITS),
        "map": metrics.average_precision_score(FLAGS, LOGITS, average="macro"),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=5e-5), name
    rates = metrics.precision_recall_fscore_support(FLAGS, answers)
    for i, label in enumerate("abcd"):
        ours = [figures["labels"][label][name] for name in ("precision", "recall", "f1", "support")]
        np.testing.assert_allclose(ours, [rate[i] for rate in rates], atol=5e-5)
    low, high = SETS.intervals(list(LOGITS), _rows(FLAGS))["micro_f1"]
    assert low < figures["micro_f1"] < high
    by_label = SETS.test_details(list(LOGITS), _rows(FLAGS))["label_intervals"]
    assert by_label["a"]["recall"][0] < figures["labels"]["a"]["recall"] < by_label["a"]["recall"][1]
    loss = torch.nn.BCEWithLogitsLoss()(torch.tensor(LOGITS), torch.tensor(FLAGS, dtype=torch.float32))
    assert SETS.loss(list(LOGITS), _rows(FLAGS)) == pytest.approx(float(loss), rel=1e-5)


def test_figures_of_numbers_are_scikit_learns_and_scipys() -> None:
    figures = NUMBER.figures(list(ANSWERS), _rows(NUMBERS))
    expected = {
        "r2": metrics.r2_score(NUMBERS, ANSWERS),
        "mae": metrics.mean_absolute_error(NUMBERS, ANSWERS),
        "rmse": metrics.root_mean_squared_error(NUMBERS, ANSWERS),
        "spearman": spearmanr(NUMBERS[:, 0], ANSWERS[:, 0]).statistic,
    }
    bounds = NUMBER.intervals(list(ANSWERS), _rows(NUMBERS))
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=5e-5), name
        assert bounds[name][0] < value < bounds[name][1], name
    draw = np.random.default_rng(0)
    chosen = [draw.integers(120, size=120) for _ in range(1000)]
    theirs = np.quantile([metrics.r2_score(NUMBERS[rows], ANSWERS[rows]) for rows in chosen], [0.025, 0.975])
    np.testing.assert_allclose(bounds["r2"], theirs, atol=0.02)
    flat = NUMBER.figures([np.array([2000.0])] * 120, _rows(NUMBERS))
    assert "spearman" not in flat


def test_a_head_of_label_sets_is_one_logistic_regression_a_label() -> None:
    features = DRAW.normal(size=(120, 8)).astype(np.float32)
    flags = (features[:, :3] + 0.5 * DRAW.normal(size=(120, 3)) > 0).astype(float)
    flags = np.column_stack([flags, np.zeros(120)])
    head = SETS.fit_weak_head(features, flags)
    theirs = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=2000)).fit(features, flags[:, :3])
    np.testing.assert_allclose(head.logits(features)[:, :3], theirs.decision_function(features), atol=1e-4)
    # No row has the last label, so its frequency answers: 0.5 of 121 rows.
    np.testing.assert_allclose(head.logits(features)[:, 3], np.log(0.5 / 120.5), rtol=1e-5)
    chosen = SETS.fit_head(features, flags, 0)
    assert chosen.strength in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def test_a_head_of_numbers_is_the_ridge_regression_of_the_least_error_on_rows_left_out() -> None:
    features = DRAW.normal(size=(30, 8)).astype(np.float32)
    values = 50 + 3 * features[:, :1].astype(float) + DRAW.normal(size=(30, 1))
    head = NUMBER.fit_head(features, values, 0)

    def left_out_error(alpha: float) -> float:
        errors = []
        for i in range(30):
            rest = np.arange(30) != i
            model = Ridge(alpha=alpha).fit(features[rest], values[rest, 0])
            errors.append(float(model.predict(features[i : i + 1])[0] - values[i, 0]) ** 2)
        return float(np.mean(errors))

    alphas = [1 / strength for strength in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)]
    best = min(alphas, key=left_out_error)
    assert 1 / head.strength == pytest.approx(best)
    theirs = Ridge(alpha=best).fit(features, values[:, 0]).predict(features)
    np.testing.assert_allclose(head.logits(features)[:, 0], theirs, rtol=1e-4)


@pytest.mark.parametrize("problem", [SETS, NUMBER], ids=["label sets", "numbers"])
def test_the_gate_expects_a_gain_of_better_answers_and_none_of_worse_ones(problem: Problem) -> None:
    values = FLAGS if problem is SETS else NUMBERS
    truth = 2 * FLAGS - 1 if problem is SETS else NUMBERS
    noise = np.random.default_rng(1).normal(size=truth.shape) * (1.0 if problem is SETS else 5.0)
    head = list(truth + noise)
    for share, better in ((0.4, True), (1.6, False)):
        after = [list(truth + share * noise)] * len(STRENGTHS)
        rows = _rows(values)
        observed = problem.observe(head, after, rows)
        gained = problem.score(after[0], rows) - problem.score(head, rows)
        assert observed.gains[0] == pytest.approx(gained)
        assert observed.error == pytest.approx(1 - problem.score(head, rows))
        gains = expected_gains(GAIN_PRIORS[problem.gain_kind(rows, False, False)], observed, STRENGTHS)
        assert all(gain.chance_of_loss < 0.05 for gain in gains) == better
        assert all(gain.chance_of_loss > 0.9 for gain in gains) != better
        paired = problem.compare(head, after[0], rows)
        assert (paired.p_value < 0.01) == better
        assert paired.difference == pytest.approx(gained)


def test_numbers_are_learned_in_units_of_their_deviation() -> None:
    units = NUMBER.units(_rows(NUMBERS))
    assert (units.mean, units.deviation) == (pytest.approx(NUMBERS.mean()), pytest.approx(NUMBERS.std()))
    restored = units.restored([(answer - units.mean) / units.deviation for answer in ANSWERS])
    np.testing.assert_allclose(restored, ANSWERS)
    assert NUMBER.loss(list(ANSWERS), _rows(NUMBERS), units) == pytest.approx(
        1 - metrics.r2_score(NUMBERS, ANSWERS)
    )
    assert Units.of([3.0, 3.0]) == Units(3.0, 1.0)
    assert Units.of([0.1, 0.1, 0.1]).deviation == 1.0


def test_figures_of_a_small_unit_keep_their_digits_and_have_intervals() -> None:
    unit = 1e-6
    figures = NUMBER.figures(list(unit * ANSWERS), _rows(unit * NUMBERS))
    bounds = NUMBER.intervals(list(unit * ANSWERS), _rows(unit * NUMBERS))
    large = NUMBER.intervals(list(ANSWERS), _rows(NUMBERS))
    for name in ("mae", "rmse"):
        np.testing.assert_allclose(bounds[name], unit * np.array(large[name]), rtol=1e-3)
        text = figure_text(name, figures[name], 3)
        assert float(text) == pytest.approx(figures[name], rel=1e-3)
        assert f"{name} {text} (95 % interval {bounds[name][0]:.4g} to" in _figures_line(
            {name: figures[name], "intervals": bounds}
        )
        assert f"| {text} |" in _comparison({"adapter": figures, "baselines": {"mean": figures}})
    np.testing.assert_allclose(bounds["r2"], large["r2"], atol=2e-4)

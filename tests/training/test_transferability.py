"""Transferability scores, held to a direct maximisation of the evidence and to their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, spearmanr
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.model_selection import cross_val_score

from rootstock.training.metrics.transferability import h_score, log_me


def _problem(rows: int, width: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of 4 classes whose centres lie `signal` apart."""
    draw = np.random.default_rng(seed)
    targets = np.tile(np.arange(4), rows // 4)
    centres = draw.normal(size=(4, width))
    return signal * centres[targets] + draw.normal(size=(rows, width)), targets


def _largest_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """The marginal likelihood of a linear model as scipy's Gaussian, maximised by scipy."""

    def negative(logs: np.ndarray) -> float:
        logs = np.clip(logs, -30, 30)
        covariance = features @ features.T / np.exp(logs[0]) + np.eye(len(target)) / np.exp(logs[1])
        return -float(multivariate_normal.logpdf(target, cov=covariance))

    return -min(minimize(negative, start, method="Nelder-Mead").fun for start in ([0, 0], [3, 2], [5, 0]))


@pytest.mark.parametrize(("rows", "width"), [(60, 8), (24, 40)])
def test_log_me_is_the_evidence_that_scipy_finds_by_maximising_it(rows: int, width: int) -> None:
    features, targets = _problem(rows, width, 0.6)
    expected = np.mean([_largest_evidence(features, (targets == c).astype(float)) for c in range(4)]) / rows
    assert log_me(features, targets) == pytest.approx(expected, abs=1e-4)


def test_log_me_is_the_score_of_scikit_learns_bayesian_ridge_without_its_hyperpriors() -> None:
    features, targets = _problem(80, 6, 0.8, seed=3)
    scores = []
    for c in range(4):
        ridge = BayesianRidge(
            max_iter=5000,
            tol=1e-10,
            alpha_1=0,
            alpha_2=0,
            lambda_1=0,
            lambda_2=0,
            compute_score=True,
            fit_intercept=False,
        )
        scores.append(ridge.fit(features, (targets == c).astype(float)).scores_[-1])
    assert log_me(features, targets) == pytest.approx(np.mean(scores) / 80, abs=1e-4)


def test_the_h_score_of_many_rows_is_its_definition_without_shrinkage() -> None:
    features, targets = _problem(20_000, 5, 1.0)
    means = np.stack([features[targets == c].mean(0) for c in range(4)])[targets]
    expected = np.trace(np.linalg.pinv(np.cov(features.T)) @ np.cov(means.T))
    assert h_score(features, targets) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_scores_order_features_as_a_trained_classifier_does(score: object) -> None:
    signals = (0.0, 0.15, 0.3, 0.6, 1.2)
    problems = [_problem(200, 16, signal, seed=1) for signal in signals]
    scores = [score(*problem) for problem in problems]  # type: ignore[operator]
    trained = [cross_val_score(LogisticRegression(), *problem, cv=5).mean() for problem in problems]
    assert spearmanr(scores, trained).statistic > 0.89


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize(("rows", "width"), [(200, 16), (32, 96)])
def test_shuffled_labels_score_lower_also_with_fewer_rows_than_features(
    score: object, rows: int, width: int
) -> None:
    features, targets = _problem(rows, width, 0.5)
    shuffled = np.random.default_rng(0).permutation(targets)
    assert score(features, targets) > score(features, shuffled)  # type: ignore[operator]


def test_features_that_say_all_or_nothing_give_finite_scores() -> None:
    targets = np.tile(np.arange(2), 20)
    assert np.isfinite(log_me(np.eye(2)[targets], targets))
    assert np.isfinite(log_me(np.zeros((40, 3)), targets))
    assert log_me(np.eye(2)[targets], targets) > log_me(np.zeros((40, 3)), targets)
    assert np.isfinite(h_score(np.eye(2)[targets] + 0.1, targets))


def test_one_class_or_a_missing_target_is_refused() -> None:
    with pytest.raises(ValueError, match="one class only"):
        log_me(np.ones((4, 2)), [1, 1, 1, 1])
    with pytest.raises(ValueError, match="4 rows of features for 3 targets"):
        h_score(np.ones((4, 2)), [0, 1, 1])

"""Temperature and calibration error, held to scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator

from rootstock.training.metrics.calibration import (
    COLDEST,
    HOTTEST,
    calibrate,
    expected_error,
    fit_temperature,
    flatten,
    reliability,
    softmax,
)


class _Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gives its inputs as its logits."""

    def fit(self, inputs: Any, targets: Any) -> _Logits:
        self.classes_ = np.unique(targets)
        return self

    def decision_function(self, inputs: Any) -> Any:
        return inputs

    def predict(self, inputs: Any) -> Any:
        return inputs.argmax(1)


def _overconfident(rows: int, seed: int, factor: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of 5 labels that are `factor` times too large for how their targets were drawn."""
    draw = np.random.default_rng(seed)
    honest = draw.normal(0, 1.5, (rows, 5))
    targets = np.array([draw.choice(5, p=row) for row in softmax(honest)])
    return factor * honest, targets


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_is_scikit_learns(factor: float) -> None:
    logits, targets = _overconfident(2000, 0, factor)
    fitted = CalibratedClassifierCV(FrozenEstimator(_Logits().fit(logits, targets)), method="temperature")
    fitted.fit(logits, targets)
    theirs = [1 / classifier.calibrators[0].beta_ for classifier in fitted.calibrated_classifiers_]
    assert len(theirs) == 1
    assert fit_temperature(logits, targets) == pytest.approx(theirs[0], rel=1e-3)
    assert fit_temperature(logits, targets) == pytest.approx(factor, rel=0.15)


def test_rows_that_are_all_right_make_the_model_as_sure_as_their_number_allows() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (48, 6))
    temperature = fit_temperature(logits, logits.argmax(1))
    assert softmax(logits, temperature).max(1).mean() == pytest.approx(49 / 50)


def test_a_temperature_stays_within_its_bounds_whatever_the_logits() -> None:
    logits = 3 * np.eye(4)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(HOTTEST, rel=1e-3)
    assert fit_temperature(1e6 * logits, np.arange(4)) == HOTTEST
    assert fit_temperature(1e-6 * logits, np.arange(4)) == COLDEST
    assert np.isfinite(softmax(1e6 * logits, COLDEST)).all()
    with pytest.raises(ValueError, match="no validation rows"):
        fit_temperature(np.zeros((0, 4)), [])


def test_reliability_bins_are_scikit_learns_calibration_curve_and_the_error_is_their_weighted_gap() -> None:
    logits, targets = _overconfident(3000, 1)
    probabilities = softmax(logits)
    right = probabilities.argmax(1) == targets
    accuracies, confidences = calibration_curve(right, probabilities.max(1), n_bins=15, strategy="uniform")
    rows = np.histogram(probabilities.max(1), np.linspace(0, 1, 16))[0]
    bins = reliability(probabilities, targets)
    assert [step["accuracy"] for step in bins] == pytest.approx(accuracies)
    assert [step["confidence"] for step in bins] == pytest.approx(confidences)
    assert [step["rows"] for step in bins] == [count for count in rows if count]
    weighted = float((rows[rows > 0] * np.abs(accuracies - confidences)).sum() / 3000)
    assert expected_error(bins) == pytest.approx(weighted)


def test_a_step_of_confidence_holds_its_upper_edge_as_guo_et_al_have_it() -> None:
    halves = reliability(np.array([[0.5, 0.5], [0.75, 0.25]]), [0, 1], bins=2)
    assert [step["confidence"] for step in halves] == [0.5, 0.75]


def test_full_confidence_falls_into_the_last_bin() -> None:
    assert reliability(np.array([[1.0, 0.0]]), [0]) == [{"confidence": 1.0, "accuracy": 1.0, "rows": 1}]


def test_a_temperature_from_validation_lowers_the_error_on_test_rows() -> None:
    calibration = calibrate(*_overconfident(1500, 2), *_overconfident(1500, 3))
    assert calibration["ece_before"] > 0.2
    assert calibration["ece_after"] < 0.05
    assert sum(b["rows"] for b in calibration["bins_after"]) == 1500


def test_tokens_are_flattened_without_those_that_have_no_label() -> None:
    outputs = [np.arange(6.0).reshape(3, 2), np.arange(4.0).reshape(2, 2)]
    logits, targets = flatten(outputs, [[-100, 1, -100], [0, -100]])
    assert logits.tolist() == [[2.0, 3.0], [0.0, 1.0]]
    assert targets.tolist() == [1, 0]
    logits, targets = flatten([np.array([1.0, 2.0]), np.array([3.0, 4.0])], [[1], [0]])
    assert logits.shape == (2, 2)
    with pytest.raises(ValueError, match="3 rows of logits for 2 targets"):
        flatten(outputs[:1], [[0, 1]])

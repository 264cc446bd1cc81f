"""An adapter behind a server is a fitted classifier to scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, get_scorer, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from rootstock.adapters.client.classifier import RemoteClassifier
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import InvalidRequest, Misused
from tests.peft_adapters import TEXTS

LABELS = ["neutral", "glad", "angry"]
TRUE = ["glad", "angry", "neutral", "glad"]


@pytest.fixture
def classifier(connected: Client) -> RemoteClassifier:
    return connected.classifier("mood")


@pytest.fixture(scope="module")
def expected(pipeline: Callable[..., Any]) -> np.ndarray:
    """Return transformers' scores, with the labels in sorted order."""
    answers = pipeline("text-classification", "mood", LABELS)(TEXTS, top_k=None)
    return np.array([[one["score"] for one in sorted(row, key=lambda one: one["label"])] for row in answers])


def test_probabilities_are_those_of_transformers_in_the_order_of_the_classes(
    classifier: RemoteClassifier, expected: np.ndarray
) -> None:
    assert classifier.classes_.tolist() == ["angry", "glad", "neutral"]
    assert np.allclose(classifier.predict_proba(TEXTS), expected, atol=1e-4)
    best = classifier.classes_[expected.argmax(axis=1)]
    assert classifier.predict(TEXTS).tolist() == best.tolist()
    assert classifier.predict_proba([]).shape == (0, 3)


def test_scikit_learn_s_scorers_take_it_for_a_classifier(
    classifier: RemoteClassifier, expected: np.ndarray
) -> None:
    check_is_fitted(classifier)
    assert is_classifier(classifier)
    predicted = classifier.predict(TEXTS)
    assert classifier.score(TEXTS, TRUE) == accuracy_score(TRUE, predicted)
    weights = [1, 2, 3, 4]
    assert classifier.score(TEXTS, TRUE, weights) == accuracy_score(TRUE, predicted, sample_weight=weights)
    assert get_scorer("accuracy")(classifier, TEXTS, TRUE) == accuracy_score(TRUE, predicted)
    loss = -get_scorer("neg_log_loss")(classifier, TEXTS, TRUE)
    assert loss == pytest.approx(log_loss(TRUE, expected / expected.sum(axis=1, keepdims=True)), abs=1e-3)
    assert 0 <= get_scorer("roc_auc_ovr")(classifier, TEXTS, TRUE) <= 1


def test_it_is_the_last_step_of_a_pipeline_and_stays_frozen(classifier: RemoteClassifier) -> None:
    stripped = make_pipeline(FunctionTransformer(lambda texts: [text.strip() for text in texts]), classifier)
    padded = [f"  {text} " for text in TEXTS]
    assert stripped.fit(padded, TRUE).predict(padded).tolist() == classifier.predict(TEXTS).tolist()
    assert FrozenEstimator(classifier).predict(TEXTS).tolist() == classifier.predict(TEXTS).tolist()


def test_a_confusion_matrix_counts_its_answers(classifier: RemoteClassifier) -> None:
    display = ConfusionMatrixDisplay.from_estimator(classifier, TEXTS, TRUE)
    # pyplot keeps every figure that nobody closes.
    pyplot.close(display.figure_)
    assert display.confusion_matrix.sum() == len(TEXTS)


def test_texts_come_as_lists_arrays_and_series_and_pairs_as_two_columns(
    classifier: RemoteClassifier, connected: Client
) -> None:
    expected = classifier.predict_proba(TEXTS)
    for texts in (tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=[7, 8, 9, 1])):
        assert np.allclose(classifier.predict_proba(texts), expected, atol=1e-4)
    pairs = pd.DataFrame({"text": TEXTS, "pair": TEXTS[::-1]})
    asked = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    scores = [connected.predict("mood", one, top_k=None).scores["glad"] for one in asked]
    assert np.allclose(classifier.predict_proba(pairs)[:, 1], scores, atol=1e-4)


@pytest.mark.parametrize("wrong", ["one text", {"text": "a"}, 3, [3], [["a", "b", "c"]]])
def test_what_is_no_list_of_texts_is_refused(classifier: RemoteClassifier, wrong: Any) -> None:
    with pytest.raises(Misused, match=r"X is .*; give a"):
        classifier.predict(wrong)


def test_parameters_of_the_task_go_along(connected: Client) -> None:
    long = ["word " * 4000]
    with pytest.raises(InvalidRequest, match="truncation"):
        connected.classifier("mood").predict(long)
    assert connected.classifier("mood", truncation=True).predict(long).shape == (1,)

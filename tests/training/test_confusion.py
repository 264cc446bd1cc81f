"""The confusion matrix, held to scikit-learn's."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix

from rootstock.training.metrics.confusion import Mistake, confusion, worst


def test_the_matrix_is_scikit_learns_also_for_labels_that_no_row_has() -> None:
    draw = np.random.default_rng(0)
    truth, predicted = draw.integers(0, 5, 80).tolist(), draw.integers(1, 6, 80).tolist()
    assert confusion(truth, predicted, 7) == confusion_matrix(truth, predicted, labels=range(7)).tolist()


def test_the_worst_mistakes_come_first_and_right_answers_are_none() -> None:
    matrix = [[8, 2, 0], [2, 3, 0], [1, 0, 9]]
    assert worst(matrix, ["a", "b", "c"], 2) == [Mistake("b", "a", 2, 5), Mistake("a", "b", 2, 10)]
    assert worst([[3, 0], [0, 4]], ["a", "b"]) == []

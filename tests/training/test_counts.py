"""Counts by row: their sums give scikit-learn's and seqeval's scores."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score

from rootstock.training.metrics.counts import accuracy, entity_counts, f1, label_counts, macro_f1

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def _labels(seed: int) -> tuple[list[int], list[int]]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 5, 200)
    predicted = np.where(draw.random(200) < 0.7, truth, draw.integers(0, 5, 200))
    return truth.tolist(), predicted.tolist()


def test_label_counts_sum_to_scikit_learns_accuracy_and_macro_f1() -> None:
    truth, predicted = _labels(0)
    sums = label_counts(truth, predicted, 5).sum(0)
    assert accuracy(sums) == pytest.approx(accuracy_score(truth, predicted))
    assert macro_f1(sums) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_a_label_that_nobody_has_or_predicts_is_left_out_of_macro_f1_as_in_scikit_learn() -> None:
    truth, predicted = [0, 0, 2, 2], [0, 2, 2, 2]
    assert macro_f1(label_counts(truth, predicted, 4).sum(0)) == pytest.approx(
        f1_score(truth, predicted, average="macro")
    )


@pytest.mark.parametrize("seed", range(5))
def test_entity_counts_sum_to_seqevals_strict_f1_over_any_rows(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = [[TAGS[i] for i in draw.integers(0, 5, 8)] for _ in range(60)]
    predicted = [[t if draw.random() < 0.8 else TAGS[draw.integers(5)] for t in row] for row in truth]
    counts = entity_counts(truth, predicted)
    for rows in (range(60), range(0, 60, 7)):
        expected = entity_f1([truth[i] for i in rows], [predicted[i] for i in rows], mode="strict", scheme=IOB2)
        assert f1(counts[list(rows)].sum(0)) == pytest.approx(expected)


def test_sentences_without_entities_score_zero_and_not_nan() -> None:
    assert f1(entity_counts([["O"]], [["O"]]).sum(0)) == 0

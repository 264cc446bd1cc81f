"""Figures: worked by hand, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from rootstock.training.data.encoding import IGNORED, TokenRow
from rootstock.training.metrics.evaluation import entity_figures, evaluate, label_figures


def test_an_entity_counts_only_with_its_type_and_both_edges_right() -> None:
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "B-ORG", "B-ORG"]]
    given = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "I-ORG", "B-ORG", "I-ORG"]]
    figures = entity_figures(truth, given)
    assert figures["entities"]["PER"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert figures["entities"]["LOC"] == {"precision": 0.5, "recall": 1.0, "f1": 0.6667, "support": 1}
    assert figures["entities"]["ORG"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.25, 0.2, 0.2222)


def test_two_entities_side_by_side_are_two() -> None:
    tags = [["B-PER", "B-PER", "I-PER"]]
    assert entity_figures(tags, tags)["entities"]["PER"]["support"] == 2
    assert entity_figures(tags, [["B-PER", "I-PER", "I-PER"]])["f1"] == 0.0


def test_label_figures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth, given = (random.integers(0, 4, 200).tolist() for _ in range(2))
    figures = label_figures(truth, given, "abcd")
    assert figures["accuracy"] == round(accuracy_score(truth, given), 4)
    assert abs(figures["macro_f1"] - f1_score(truth, given, average="macro")) < 1e-4


def test_a_word_that_was_cut_off_counts_as_missed() -> None:
    labels = ("O", "B-PER", "I-PER")
    example = TokenRow((2, 7, 3), (IGNORED, 1, IGNORED), words=(1, 1), first=(1, None))
    output = np.eye(3, dtype=np.float32)[[0, 1, 0]]
    figures = evaluate([output], [example], labels)
    assert (figures["precision"], figures["recall"]) == (1.0, 0.5)

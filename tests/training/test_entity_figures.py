"""Figures by entity type and by label, on any answers, held to seqeval's and scikit-learn's reports."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics import classification_report as entity_report
from seqeval.scheme import IOB2
from sklearn.metrics import classification_report

from rootstock.training.metrics.evaluation import entity_figures, label_figures

TAGS = ["O", "B-person", "I-person", "B-creative-work", "I-creative-work", "B-group", "I-group"]


@pytest.mark.parametrize("seed", range(6))
def test_entity_figures_are_seqevals_strict_ones_also_for_tags_that_no_scheme_allows(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = [[TAGS[i] for i in draw.integers(0, 7, draw.integers(1, 12))] for _ in range(80)]
    given = [[t if draw.random() < 0.75 else TAGS[draw.integers(7)] for t in row] for row in truth]
    theirs = entity_report(truth, given, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    ours = entity_figures(truth, given)
    assert set(ours["entities"]) == {"person", "creative-work", "group"}
    for kind, rates in [*ours["entities"].items(), ("micro avg", ours)]:
        for ours_name, theirs_name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert rates[ours_name] == pytest.approx(theirs[kind][theirs_name], abs=5.1e-5)
        assert rates["support"] == theirs[kind]["support"]


@pytest.mark.parametrize("seed", range(3))
def test_label_figures_are_scikit_learns_also_for_a_label_that_is_never_predicted(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, given = draw.integers(0, 5, 120).tolist(), draw.integers(0, 4, 120).tolist()
    theirs = classification_report(truth, given, target_names=list("abcde"), output_dict=True, zero_division=0)
    ours = label_figures(truth, given, "abcde")
    assert ours["labels"]["e"]["f1"] == 0
    for label, rates in ours["labels"].items():
        for ours_name, theirs_name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert rates[ours_name] == pytest.approx(theirs[label][theirs_name], abs=5.1e-5)
        assert rates["support"] == theirs[label]["support"]
    assert ours["macro_f1"] == pytest.approx(theirs["macro avg"]["f1-score"], abs=1e-4)

"""Figures by group, held to scikit-learn's by hand, and what made a gap."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics import accuracy_score, f1_score

from rootstock.training.errors import MissingExtra
from rootstock.training.metrics.fairness import fairness


def _answers(north: float, south: float, seed: int, rows: int = 300) -> np.ndarray:
    """Answers to `rows` rows a group, as often right as said; TRUTH is what is right."""
    draw = np.random.default_rng(seed)
    right = np.concatenate([draw.permutation(rows) < round(rows * share) for share in (north, south)])
    truth = np.arange(2 * rows) % 3
    return np.where(right, truth, (truth + 1) % 3)


TRUTH = np.arange(600) % 3
GROUPS = ["north"] * 300 + ["south"] * 300


def test_each_group_s_figures_are_scikit_learns_on_its_rows() -> None:
    ours, theirs = _answers(0.95, 0.8, 0), _answers(0.9, 0.7, 1)
    report = fairness(TRUTH, ours, theirs, GROUPS, "region")
    for name, rows in (("north", slice(0, 300)), ("south", slice(300, 600))):
        group = report["groups"][name]
        assert group["rows"] == 300
        assert group["accuracy"] == pytest.approx(accuracy_score(TRUTH[rows], ours[rows]), abs=5e-5)
        assert group["macro_f1"] == pytest.approx(f1_score(TRUTH[rows], ours[rows], average="macro"), abs=5e-5)
    accuracies = [group["accuracy"] for group in report["groups"].values()]
    assert report["gap"] == pytest.approx(max(accuracies) - min(accuracies), abs=1e-4)
    by_head = [accuracy_score(TRUTH[rows], theirs[rows]) for rows in (slice(0, 300), slice(300, 600))]
    assert report["foundation_gap"] == pytest.approx(by_head[0] - by_head[1], abs=5e-5)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (_answers(0.97, 0.7, 0), _answers(0.9, 0.9, 1), "made"),
        (_answers(0.95, 0.75, 0), _answers(0.9, 0.7, 1), "inherited"),
        (_answers(0.95, 0.94, 0), _answers(0.9, 0.6, 1), "reduced"),
        (_answers(0.93, 0.87, 0), _answers(0.91, 0.88, 1), "unclear"),
        (TRUTH, TRUTH, "chance"),
    ],
)
def test_a_gap_is_made_inherited_reduced_or_chance(ours: np.ndarray, theirs: np.ndarray, verdict: str) -> None:
    assert fairness(TRUTH, ours, theirs, GROUPS, "region")["verdict"] == verdict


def test_a_gap_is_chance_where_scipys_test_of_independence_says_so() -> None:
    said = []
    for seed in range(8):
        ours = _answers(0.9, 0.9 - 0.015 * seed, seed)
        right = (ours == TRUTH).reshape(2, 300).sum(1)
        p_value = chi2_contingency(np.stack([right, 300 - right]), correction=False).pvalue
        verdict = fairness(TRUTH, ours, ours, GROUPS, "region")["verdict"]
        # Where the two tests are within a hair of the level they may differ.
        if abs(p_value - 0.05) > 0.02:
            said.append((verdict == "chance", bool(p_value > 0.05)))
    assert len(said) > 5
    assert all(ours == theirs for ours, theirs in said)
    assert {True, False} == {theirs for _, theirs in said}


def test_the_seed_fixes_the_verdict_and_one_group_has_no_gap() -> None:
    ours, theirs = _answers(0.95, 0.9, 0), _answers(0.9, 0.88, 1)
    assert fairness(TRUTH, ours, theirs, GROUPS, "x", 5) == fairness(TRUTH, ours, theirs, GROUPS, "x", 5)
    with pytest.raises(ValueError, match="column region: 1 group"):
        fairness(TRUTH, ours, theirs, ["north"] * 600, "region")


def test_without_fairlearn_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairlearn.metrics", None)
    with pytest.raises(
        MissingExtra, match=r"figures by group need fairlearn.*: pip install 'rootstock\[train\]'"
    ):
        fairness(TRUTH, TRUTH, TRUTH, GROUPS, "region")

"""The problem of any number of labels for each text: sigmoid, binary cross entropy, F1 over all labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.data.example import Example
from rootstock.training.data.label_noise import doubtful_label_sets
from rootstock.training.metrics.calibration import calibrate
from rootstock.training.metrics.counts import f1
from rootstock.training.metrics.expected_gain import ObservedGain, observed_on_counts
from rootstock.training.metrics.paired_test import Comparison, paired_bootstrap
from rootstock.training.metrics.values.label_sets import (
    applied,
    label_loss,
    label_set_figures,
    label_set_intervals,
    micro_counts,
    rate_intervals,
)
from rootstock.training.metrics.wrong_answers import MOST, shortened
from rootstock.training.problems.linear_head import LinearHead
from rootstock.training.problems.one_vs_rest import choose_label_strength, fit_labels
from rootstock.training.problems.problem import DoubtfulAnswer, EncodedRows, Outputs, ValueProblem
from rootstock.training.problems.units import NONE, Units
from rootstock.training.recipe.problem_keys import MULTI

if TYPE_CHECKING:
    import torch

# C of a head that does not fit every row, from which a descent starts.
_WEAK = 10.0


class LabelSetProblem(ValueProblem):
    """Any number of the labels for each text. A label applies from a score of 0.5 on."""

    problem_type = MULTI
    unit = "f1"

    def score(self, outputs: Outputs, rows: EncodedRows) -> float:
        """Return micro-F1."""
        return float(f1(micro_counts(np.stack(outputs), _flags(rows)).sum(0)))

    def loss(self, outputs: Outputs, rows: EncodedRows, units: Units = NONE) -> float:
        """Return the binary cross entropy."""
        return label_loss(np.stack(outputs), _flags(rows))

    def value_loss(self, logits: torch.Tensor, values: torch.Tensor, units: Units) -> torch.Tensor:
        """Return the binary cross entropy."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, values)

    def figures(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return F1 over all labels and by label, the share of right sets, and the ranking of labels."""
        return label_set_figures(np.stack(outputs), _flags(rows), self.labels)

    def intervals(self, outputs: Outputs, rows: EncodedRows) -> dict[str, list[float]]:
        """Return the intervals of micro-F1, macro-F1 and the share of right sets."""
        return label_set_intervals(np.stack(outputs), _flags(rows))

    def test_details(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return the intervals of precision and recall by label."""
        return {"label_intervals": rate_intervals(np.stack(outputs), _flags(rows), self.labels)}

    def compare(self, before: Outputs, after: Outputs, rows: EncodedRows) -> Comparison:
        """Compare by a bootstrap of micro-F1 over rows."""
        counts = [micro_counts(np.stack(outputs), _flags(rows)) for outputs in (before, after)]
        return paired_bootstrap(counts[0], counts[1], f1)

    def observe(self, before: Outputs, after: Sequence[Outputs], rows: EncodedRows) -> ObservedGain:
        """Return the gains in micro-F1."""
        counts = [micro_counts(np.stack(outputs), _flags(rows)) for outputs in (before, *after)]
        return observed_on_counts(counts[0], counts[1:], f1)

    def gain_kind(self, rows: EncodedRows, few: bool, media: bool) -> str:
        """Return "label_sets" for every input and way of training."""
        return "label_sets"

    def baseline(self, train: EncodedRows, test: EncodedRows) -> Mapping[str, list[Array]]:
        """Return the log-odds of each label's frequency: those that most rows have apply."""
        flags = _flags(train)
        frequency = (flags.sum(0) + 0.5) / (len(flags) + 1)
        return {"frequencies": [np.log(frequency / (1 - frequency)).astype(np.float32)] * len(test)}

    def fit_head(self, features: Array, targets: npt.NDArray[Any], seed: int) -> LinearHead:
        """Return a logistic regression for each label, with the C of the best micro-F1 in cross-validation."""
        return fit_labels(features, targets, choose_label_strength(features, targets, seed))

    def fit_weak_head(self, features: Array, targets: npt.NDArray[Any]) -> LinearHead:
        """Return a logistic regression of C = 10 for each label."""
        return fit_labels(features, targets, _WEAK)

    def calibration(
        self, judged: Outputs, judged_rows: EncodedRows, test: Outputs, test_rows: EncodedRows
    ) -> dict[str, Any] | None:
        """Return the temperature of the sigmoid, over the answers on all labels."""
        parts = ((judged, judged_rows), (test, test_rows))
        # A sigmoid is a softmax with a second logit of 0.
        pairs = [np.stack([np.zeros(wide.size), wide.ravel()], 1) for wide in (np.stack(o) for o, _ in parts)]
        truth = [_flags(rows).ravel().astype(np.int64) for _, rows in parts]
        return calibrate(pairs[0], truth[0], pairs[1], truth[1])

    def details(self, outputs: Outputs, examples: Sequence[Example], rows: EncodedRows) -> dict[str, Any]:
        """Return the rows with a wrong label, or without a right one, the most confident mistake first."""
        logits, flags = np.stack(outputs), _flags(rows) > 0
        answers = applied(logits)
        scores = np.where(answers != flags, 1 / (1 + np.exp(-np.abs(logits.astype(np.float64)))), 0.0).max(1)
        wrong = np.flatnonzero((answers != flags).any(1))
        ordered = sorted(wrong.tolist(), key=lambda i: (-scores[i], examples[i].line))
        listed = [
            {
                "line": examples[i].line,
                "text": shortened(examples[i]),
                "true": self._named(flags[i]),
                "predicted": self._named(answers[i]),
                "score": round(float(scores[i]), 4),
            }
            for i in ordered[:MOST]
        ]
        return {"mistakes": {"count": len(wrong), "of": len(rows), "rows": listed}}

    def doubts(self, outputs: Outputs, rows: EncodedRows) -> list[DoubtfulAnswer]:
        """Return the labels that rows have and should not have, or lack, by confident learning."""
        probabilities = 1 / (1 + np.exp(-np.stack(outputs).astype(np.float64)))
        flags = _flags(rows) > 0
        given = [np.flatnonzero(row).tolist() for row in flags]
        found = []
        for row, label in doubtful_label_sets(given, probabilities):
            has, name = bool(flags[row, label]), self.labels[label]
            likely = probabilities[row, label]
            with_it, without = name, f"not {name}"
            answers = (with_it, without) if has else (without, with_it)
            found.append(DoubtfulAnswer(row, None, *answers, float(1 - likely if has else likely)))
        return sorted(found, key=lambda one: -one.score)

    def _named(self, flags: npt.NDArray[np.bool_]) -> str:
        return ", ".join(self.labels[i] for i in np.flatnonzero(flags)) or "no label"


def _flags(rows: EncodedRows) -> npt.NDArray[np.float64]:
    """Return (rows, labels) with 1 for each label of a row."""
    return np.array([row.values for row in rows], np.float64)

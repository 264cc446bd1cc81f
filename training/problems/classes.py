"""The problem of one class for each input or word: softmax, cross entropy, accuracy and F1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.data.label_noise import doubtful_labels, doubtful_tags, of_words
from rootstock.training.metrics.calibration import calibrate, flatten, log_loss, softmax
from rootstock.training.metrics.confusion import confusion
from rootstock.training.metrics.counts import entity_counts, f1
from rootstock.training.metrics.evaluation import evaluate, macro_f1, word_tags
from rootstock.training.metrics.expected_gain import (
    ObservedGain,
    observed_on_counts,
    observed_on_labels,
)
from rootstock.training.metrics.intervals import output_intervals
from rootstock.training.metrics.ordinal import label_values, ordinal_figures
from rootstock.training.metrics.paired_test import Comparison, mcnemar, paired_bootstrap
from rootstock.training.metrics.wrong_answers import wrong_answers
from rootstock.training.problems.linear_head import LinearHead, choose_strength, fit_head
from rootstock.training.problems.problem import DoubtfulAnswer, EncodedRows, Outputs, Problem
from rootstock.training.problems.units import NONE, Units
from rootstock.training.recipe.problem_keys import SINGLE

# C of a head that does not fit every row: few rows cannot choose it, and a descent needs a loss to learn from.
_WEAK = 10.0
# Fewer sentences than this teach an adapter little about entities.
_FEW_SENTENCES = 500
# The models whose answers are compared as numbers.
_ORDINAL = ("adapter", "head_only")


class ClassProblem(Problem):
    """One of the labels for each input, or a tag for each word."""

    problem_type = SINGLE
    unit = "f1"
    has_classes = True

    def score(self, outputs: Outputs, rows: EncodedRows) -> float:
        """Return macro-F1, for tokens the F1 of whole entities."""
        return macro_f1(outputs, rows, self.labels)

    def loss(self, outputs: Outputs, rows: EncodedRows, units: Units = NONE) -> float:
        """Return the cross entropy."""
        return log_loss(*flatten(outputs, [row.targets for row in rows]))

    def figures(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return accuracy and F1 by label, or F1 of whole entities by type."""
        return evaluate(outputs, rows, self.labels)

    def intervals(self, outputs: Outputs, rows: EncodedRows) -> dict[str, list[float]]:
        """Return the intervals of accuracy and macro-F1, or of entity F1."""
        return output_intervals(outputs, rows, self.labels)

    def compare(self, before: Outputs, after: Outputs, rows: EncodedRows) -> Comparison:
        """Compare texts by McNemar's test on right answers, tokens by a bootstrap of entity F1 over sentences."""
        if rows[0].words:
            counts = [entity_counts(*word_tags(outputs, rows, self.labels)) for outputs in (before, after)]
            return paired_bootstrap(counts[0], counts[1], f1)
        return mcnemar(_right(before, rows), _right(after, rows))

    def observe(self, before: Outputs, after: Sequence[Outputs], rows: EncodedRows) -> ObservedGain:
        """Return the gains in accuracy for texts, in entity F1 for tokens."""
        if rows[0].words:
            counts = [entity_counts(*word_tags(outputs, rows, self.labels)) for outputs in (before, *after)]
            return observed_on_counts(counts[0], counts[1:], f1)
        right = [_right(outputs, rows) for outputs in (before, *after)]
        return observed_on_labels(right[0], right[1:])

    def gain_kind(self, rows: EncodedRows, few: bool, media: bool) -> str:
        """Return the key of a kind of input and of a way of training."""
        if media:
            return "media"
        if rows[0].words:
            return "few_entities" if len(rows) < _FEW_SENTENCES else "entities"
        return "few_texts" if few else "many_texts"

    def baseline(self, train: EncodedRows, test: EncodedRows) -> Mapping[str, list[Array]]:
        """Return the commonest class of the training rows (for tokens: of their words) for every test row."""
        return {"majority": _majority(train, test, len(self.labels))}

    def fit_head(self, features: Array, targets: npt.NDArray[Any], seed: int) -> LinearHead:
        """Return the logistic regression whose C cross-validation chooses."""
        return fit_head(features, targets, len(self.labels), choose_strength(features, targets, seed))

    def fit_weak_head(self, features: Array, targets: npt.NDArray[Any]) -> LinearHead:
        """Return the logistic regression of C = 10."""
        return fit_head(features, targets, len(self.labels), _WEAK)

    def calibration(
        self, judged: Outputs, judged_rows: EncodedRows, test: Outputs, test_rows: EncodedRows
    ) -> dict[str, Any] | None:
        """Return the temperature of the softmax."""
        parts = ((judged, judged_rows), (test, test_rows))
        flat = [flatten(outputs, [row.targets for row in rows]) for outputs, rows in parts]
        return calibrate(*flat[0], *flat[1])

    def details(self, outputs: Outputs, examples: Sequence[Example], rows: EncodedRows) -> dict[str, Any]:
        """Return the misclassified rows or words."""
        return {"mistakes": wrong_answers(outputs, examples, rows, self.labels)}

    def comparisons(self, models: Mapping[str, Outputs], rows: EncodedRows) -> dict[str, Any]:
        """Return the figures of labels that are numbers; nothing for other labels."""
        if rows[0].words or (values := label_values(self.labels)) is None:
            return {}
        truth = [row.targets[0] for row in rows]
        return {
            "ordinal": {
                name: ordinal_figures(truth, [int(row.argmax()) for row in models[name]], values)
                for name in _ORDINAL
                if name in models
            }
        }

    def test_details(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return the confusion matrix of texts."""
        if rows[0].words:
            return {}
        truth, predicted = [row.targets[0] for row in rows], [int(row.argmax()) for row in outputs]
        return {"confusion": confusion(truth, predicted, len(self.labels))}

    def doubts(self, outputs: Outputs, rows: EncodedRows) -> list[DoubtfulAnswer]:
        """Return the labels, or the tags of words, that confident learning finds wrong."""
        probabilities = [softmax(output) for output in outputs]
        if rows[0].words:
            words = [of_words(one, row) for one, row in zip(probabilities, rows, strict=True)]
            found = doubtful_tags([row.words for row in rows], words)
        else:
            found = doubtful_labels([row.targets[0] for row in rows], np.stack(probabilities))
        return [
            DoubtfulAnswer(
                one.row, one.word, self.labels[one.given], self.labels[one.likely], one.likely_probability
            )
            for one in found
        ]


def _right(outputs: Outputs, rows: EncodedRows) -> npt.NDArray[np.bool_]:
    """Return for each text whether the answer is right."""
    answers = np.array([row.argmax() for row in outputs])
    return np.asarray(answers == np.array([row.targets[0] for row in rows]), np.bool_)


def _majority(train: Sequence[EncodedRow], test: Sequence[EncodedRow], labels: int) -> list[Array]:
    classes = [c for row in train for c in (row.words or row.targets)]
    answer = Counter(classes).most_common(1)[0][0]
    row = np.eye(labels, dtype=np.float32)[answer]
    return [np.tile(row, (len(r.targets), 1)) if r.words else row for r in test]

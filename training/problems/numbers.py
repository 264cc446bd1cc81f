"""The problem of a number for each text: the squared error of standardised numbers, and R²."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.data.example import Example
from rootstock.training.metrics.expected_gain import ObservedGain, observed_on_counts
from rootstock.training.metrics.paired_test import Comparison, paired_bootstrap
from rootstock.training.metrics.values.number_figures import error_counts, number_figures, number_intervals, r2
from rootstock.training.metrics.wrong_answers import shortened
from rootstock.training.problems.linear_head import LinearHead
from rootstock.training.problems.problem import EncodedRows, Outputs, ValueProblem
from rootstock.training.problems.ridge import fit_ridge
from rootstock.training.problems.units import NONE, Units
from rootstock.training.recipe.problem_keys import REGRESSION

if TYPE_CHECKING:
    import torch

# 1 / alpha of a head that does not fit every row, from which a descent starts.
_WEAK = 1.0
_LARGEST = 20
# The most points of the plot of predicted against true numbers.
_POINTS = 2000


class NumberProblem(ValueProblem):
    """A number for each text. The label is its name."""

    problem_type = REGRESSION
    unit = "r2"

    def score(self, outputs: Outputs, rows: EncodedRows) -> float:
        """Return R², the share of the variance explained."""
        return float(r2(_errors(outputs, rows).sum(0)))

    def loss(self, outputs: Outputs, rows: EncodedRows, units: Units = NONE) -> float:
        """Return the mean squared error of standardised numbers."""
        return float(_errors(outputs, rows)[:, 2].mean()) / units.deviation**2

    def value_loss(self, logits: torch.Tensor, values: torch.Tensor, units: Units) -> torch.Tensor:
        """Return the mean squared error of standardised outputs."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits, (values - units.mean) / units.deviation)

    def figures(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return R², the errors and the correlation of ranks."""
        return number_figures(_truth(rows), _answers(outputs))

    def intervals(self, outputs: Outputs, rows: EncodedRows) -> dict[str, list[float]]:
        """Return the intervals of all figures, over resampled rows."""
        return number_intervals(_truth(rows), _answers(outputs))

    def compare(self, before: Outputs, after: Outputs, rows: EncodedRows) -> Comparison:
        """Compare by a bootstrap of R² over rows."""
        return paired_bootstrap(_errors(before, rows), _errors(after, rows), r2)

    def observe(self, before: Outputs, after: Sequence[Outputs], rows: EncodedRows) -> ObservedGain:
        """Return the gains in R². A gain ÷ (1 − R² of the head) is the share by which the squared error falls."""
        return observed_on_counts(_errors(before, rows), [_errors(outputs, rows) for outputs in after], r2)

    def gain_kind(self, rows: EncodedRows, few: bool, media: bool) -> str:
        """Return "numbers" for every input and way of training."""
        return "numbers"

    def baseline(self, train: EncodedRows, test: EncodedRows) -> Mapping[str, list[Array]]:
        """Return the mean of the training rows."""
        return {"mean": [np.array([_truth(train).mean()])] * len(test)}

    def fit_head(self, features: Array, targets: npt.NDArray[Any], seed: int) -> LinearHead:
        """Return the ridge regression of the least squared error on rows that are left out one by one."""
        return fit_ridge(features, targets)

    def fit_weak_head(self, features: Array, targets: npt.NDArray[Any]) -> LinearHead:
        """Return the ridge regression of alpha = 1."""
        return fit_ridge(features, targets, _WEAK)

    def units(self, train: EncodedRows) -> Units:
        """Return the mean and the deviation of the training rows."""
        return Units.of([row.values[0] for row in train])

    def details(self, outputs: Outputs, examples: Sequence[Example], rows: EncodedRows) -> dict[str, Any]:
        """Return the rows with the largest errors."""
        truth, answers = _truth(rows), _answers(outputs)
        ordered = sorted(range(len(rows)), key=lambda i: (-abs(answers[i] - truth[i]), examples[i].line))
        listed = [
            {
                "line": examples[i].line,
                "text": shortened(examples[i]),
                "true": float(truth[i]),
                "predicted": float(f"{answers[i]:.6g}"),
            }
            for i in ordered[:_LARGEST]
        ]
        return {"largest_errors": {"of": len(rows), "rows": listed}}

    def test_details(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return true and predicted numbers for a plot, of rows spread evenly over the file."""
        step = -(-len(rows) // _POINTS)
        pairs = zip(_truth(rows)[::step], _answers(outputs)[::step], strict=True)
        return {"points": [[float(true), float(f"{answer:.6g}")] for true, answer in pairs]}


def _truth(rows: EncodedRows) -> npt.NDArray[np.float64]:
    return np.array([row.values[0] for row in rows], np.float64)


def _answers(outputs: Outputs) -> npt.NDArray[np.float64]:
    return np.array([output[0] for output in outputs], np.float64)


def _errors(outputs: Outputs, rows: EncodedRows) -> npt.NDArray[np.float64]:
    return error_counts(_truth(rows), _answers(outputs))

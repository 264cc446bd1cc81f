"""The decisions of a problem type: one object, which data, heads, descents, gates and reports ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.metrics.expected_gain import ObservedGain
from rootstock.training.metrics.paired_test import Comparison
from rootstock.training.problems.linear_head import LinearHead
from rootstock.training.problems.units import NONE, Units
from rootstock.training.recipe.problem_keys import ProblemType

if TYPE_CHECKING:
    import torch

Outputs = Sequence[Array]
EncodedRows = Sequence[EncodedRow]


class DoubtfulAnswer(NamedTuple):
    """An answer in the data that looks wrong: its row, the word of a sentence, both answers, and the likely one's
    probability."""

    row: int
    word: int | None
    given: str
    likely: str
    score: float


class Problem(ABC):
    """A problem type with its labels in id order; of numbers the one label is their name.

    Raw outputs are (labels,) for each row, for tokens (tokens, labels).
    """

    problem_type: ClassVar[ProblemType]
    # The key of the score of an epoch in metrics.json, after `validation_`.
    unit: ClassVar[str]
    # True if rows have one class each, which a contrast, or a name as one more row, needs.
    has_classes: ClassVar[bool] = False

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    @abstractmethod
    def score(self, outputs: Outputs, rows: EncodedRows) -> float:
        """Return the score that chooses epochs, seeds and settings: the higher, the better."""

    @abstractmethod
    def loss(self, outputs: Outputs, rows: EncodedRows, units: Units = NONE) -> float:
        """Return the mean loss of raw outputs, as training counts it."""

    @abstractmethod
    def figures(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return the figures of raw outputs against the truth, rounded to four decimals."""

    @abstractmethod
    def intervals(self, outputs: Outputs, rows: EncodedRows) -> dict[str, list[float]]:
        """Return the 95 % intervals of the figures, by name."""

    @abstractmethod
    def compare(self, before: Outputs, after: Outputs, rows: EncodedRows) -> Comparison:
        """Test by pairs whether `after` is better than `before` on the same rows."""

    @abstractmethod
    def observe(self, before: Outputs, after: Sequence[Outputs], rows: EncodedRows) -> ObservedGain:
        """Return the gains of several outputs over `before`, in the unit of the gate."""

    @abstractmethod
    def gain_kind(self, rows: EncodedRows, few: bool, media: bool) -> str:
        """Return the key of the gains to expect (GAIN_PRIORS); `few` is true for a training by contrast."""

    @abstractmethod
    def baseline(self, train: EncodedRows, test: EncodedRows) -> Mapping[str, list[Array]]:
        """Return the outputs for the test rows of a model that reads no input, by its name."""

    @abstractmethod
    def fit_head(self, features: Array, targets: npt.NDArray[Any], seed: int) -> LinearHead:
        """Return the head on (rows, width) features, with a strength chosen by cross-validation."""

    @abstractmethod
    def fit_weak_head(self, features: Array, targets: npt.NDArray[Any]) -> LinearHead:
        """Return the head of a fixed, low strength, from which a descent starts."""

    def units(self, train: EncodedRows) -> Units:
        """Return the units in which a descent on these rows learns."""
        return NONE

    def calibration(
        self, judged: Outputs, judged_rows: EncodedRows, test: Outputs, test_rows: EncodedRows
    ) -> dict[str, Any] | None:
        """Return the temperature, fitted on `judged`, and its effect on test; None without probabilities."""
        return None

    def details(self, outputs: Outputs, examples: Sequence[Example], rows: EncodedRows) -> dict[str, Any]:
        """Return further parts of metrics.json on the test rows, such as the rows that are most wrong."""
        return {}

    def comparisons(self, models: Mapping[str, Outputs], rows: EncodedRows) -> dict[str, Any]:
        """Return further parts of metrics.json on several models, such as the figures of ordinal labels."""
        return {}

    def test_details(self, outputs: Outputs, rows: EncodedRows) -> dict[str, Any]:
        """Return further figures of the test rows, beside those of the adapter and its baselines."""
        return {}

    def doubts(self, outputs: Outputs, rows: EncodedRows) -> list[DoubtfulAnswer]:
        """Return the answers in the data that models which did not see them find wrong, the likeliest first."""
        return []


class ValueProblem(Problem):
    """A problem whose rows have values: 0 or 1 for each label, or a number."""

    @abstractmethod
    def value_loss(self, logits: torch.Tensor, values: torch.Tensor, units: Units) -> torch.Tensor:
        """Return the mean loss of (rows, labels) outputs; standardised ones if the problem has units."""

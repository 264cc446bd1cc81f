"""The rows of a training, and the plan by which a candidate is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.data.split import FOLDS, folds
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Report, silent
from rootstock.training.network.inputs import KnownStates
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.row_encoder import InputEncoder
from rootstock.training.recipe.augmentation_section import Augmentation
from rootstock.training.recipe.recipe import DomainAdaptation, Training

# Below this many rows a label on average, `auto` trains by contrast first.
FEW = 40


@dataclass(frozen=True)
class FitSettings:
    """The sections of a recipe that a descent depends on."""

    training: Training
    augmentation: Augmentation
    domain_adaptation: DomainAdaptation | None

    @property
    def rewords(self) -> bool:
        """True if augmentation changes the words, and so the tokens, in each epoch."""
        return bool(self.augmentation.word_dropout or self.augmentation.word_swap)

    def contrasts(self, classes: bool, rows: int, labels: int) -> bool:
        """Return True if a contrastive stage comes first: the recipe says so, or a label has few rows.

        `classes` is true for a linear head on inputs that have one class each.
        """
        epochs = self.training.contrastive_epochs
        return classes and rows < FEW * labels if epochs is None else epochs > 0


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one training: `train` encodes `examples`, and `validation` may be empty.

    `split_seed` deals the rows into folds. If a fold was taken out, `total` is the number of rows with it: that
    number decides whether a contrastive stage comes first.
    """

    examples: Sequence[Example]
    train: Sequence[EncodedRow]
    validation: Sequence[EncodedRow] = ()
    split_seed: int = 0
    total: int | None = None

    @property
    def scoring_rows(self) -> Sequence[EncodedRow]:
        """The rows that methods are judged on: validation or, by cross-validation, the training rows."""
        return self.validation or self.train

    @property
    def count(self) -> int:
        """The number of rows to train on, with those of a fold that was taken out."""
        return len(self.train) if self.total is None else self.total

    def part(self, positions: Sequence[int]) -> TrainingRows:
        """Return a copy whose rows to train on are those at these positions."""
        return replace(
            self, examples=[self.examples[i] for i in positions], train=[self.train[i] for i in positions]
        )

    def folds(self, count: int = FOLDS) -> Iterator[tuple[TrainingRows, list[int]]]:
        """Yield the rows without each fold, and the positions of that fold."""
        for train, test in folds(self.examples, self.split_seed, count):
            yield replace(self.part(train), validation=(), total=self.count), test


@dataclass(frozen=True)
class TrainingPlan:
    """The plan of a training: the network, the settings and the seed.

    `target` are unlabelled rows of another domain. `stage` names the training in reports and checkpoints.
    `preparing` gets the rows whose states below the first layer that changes are computed ahead. `known` gives
    those that the trainings of a run share.
    """

    network: NetworkSpec
    encoder: InputEncoder
    settings: FitSettings
    seed: int
    target: Sequence[EncodedRow] = ()
    report: Report = silent
    checkpoints: Checkpoints | None = None
    stage: str = "fit"
    preparing: Report = silent
    known: KnownStates | None = None

    def by_contrast(self, rows: TrainingRows) -> bool:
        """Return True if a contrastive stage comes first: the recipe says so, or a label has few rows on average.

        The labels' names are then rows too, also for the head alone.
        """
        classes = self.network.linear_head and self.encoder.problem.has_classes
        return self.settings.contrasts(classes, rows.count, self.network.labels)

"""The errors of training. Each message is one line for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TrainingError(Exception):
    """A fault that ends a training run: the message names the file, the fault and the remedy."""


class RecipeError(TrainingError):
    """A recipe that cannot be used: the message names the file and the key."""


class DataError(TrainingError):
    """Labelled data that cannot be used: the message names the file and, where there is one, the line."""


class MissingColumn(DataError):
    """A table that lacks a column: the message names it and those that there are."""


class Diverged(TrainingError):
    """A loss that is not a number: the message names the step and the key to change."""


class MissingExtra(TrainingError):
    """A missing package that only rootstock[train] installs."""

    @classmethod
    def of(cls, feature: str, package: str | None) -> MissingExtra:
        """Return the error for a feature (a plural), with the command that installs its package."""
        return cls(f"{feature} need {package}: pip install 'rootstock[train]'")


@contextmanager
def extra(feature: str) -> Iterator[None]:
    """Import packages of rootstock[train]. Raise MissingExtra, which names the feature, if one is missing."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra.of(feature, error.name) from None


class BelowBaseline(TrainingError):
    """An adapter that is worse than a head alone on the frozen foundation: the message states both scores."""

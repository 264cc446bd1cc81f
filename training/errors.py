"""What can go wrong when an adapter is trained, as types. Each message is one line for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TrainingError(Exception):
    """A training run that cannot go on: says which file, what was found and what to do."""


class RecipeError(TrainingError):
    """A recipe that cannot be used: names the file and the key."""


class DataError(TrainingError):
    """Labelled data that cannot be used: names the file and, where there is one, the line."""


class Diverged(TrainingError):
    """A loss that is not a number: names the step and what to change."""


class MissingExtra(TrainingError):
    """A package that is installed with rootstock[train] alone."""

    @classmethod
    def of(cls, what: str, package: str | None) -> MissingExtra:
        """What needs the package, and how to install it."""
        return cls(f"{what} need {package}: pip install 'rootstock[train]'")


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Imports of what only rootstock[train] brings; MissingExtra says what needs it."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra.of(what, error.name) from None


class BelowBaseline(TrainingError):
    """An adapter that is worse than a head alone on the frozen foundation: states both scores."""

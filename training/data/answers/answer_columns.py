"""Reads the answer of a row from its columns: one label, any number of labels, or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from rootstock.training.characters import quoted
from rootstock.training.data.example import Example
from rootstock.training.data.formats.label_value import label_text
from rootstock.training.errors import DataError
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION
from rootstock.training.recipe.recipe import Recipe

_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
# Squares of larger numbers are beyond fp32.
_LARGEST = 1e15


class AnswerColumns(Protocol):
    """The columns that hold the answer of a row."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""

    def read(self, where: str, row: Mapping[str, Any]) -> Example:
        """Return an example without a text that has the row's answer. Raise DataError for a wrong one."""


def answer_columns(recipe: Recipe) -> AnswerColumns:
    """Return the columns of the answer, by the recipe's problem type."""
    data = recipe.data
    if recipe.problem_type == REGRESSION:
        return NumberColumn(data.label_column)
    if recipe.problem_type != MULTI:
        return LabelColumn(data.label_column)
    if data.label_columns is not None:
        return FlagColumns(tuple(data.label_columns))
    return LabelListColumn(data.label_column, data.label_separator)


@dataclass(frozen=True)
class LabelColumn:
    """A column of one label a row."""

    name: str

    @property
    def names(self) -> Sequence[str]:
        """The name of the column."""
        return (self.name,)

    def read(self, where: str, row: Mapping[str, Any]) -> Example:
        """Return the label."""
        return Example("", (label_text(where, self.name, row[self.name]),), 0)


@dataclass(frozen=True)
class LabelListColumn:
    """A column of labels: a list, or a text in which `separator` stands between them. Both may be empty."""

    name: str
    separator: str | None

    @property
    def names(self) -> Sequence[str]:
        """The name of the column."""
        return (self.name,)

    def read(self, where: str, row: Mapping[str, Any]) -> Example:
        """Return the labels, each once, in alphabetical order."""
        value = row[self.name]
        if isinstance(value, str) and self.separator is None and value.strip():
            raise DataError(
                f"{where}: the labels ({self.name!r}) are {quoted(value)}, a text; state the text between two "
                "labels, such as data.label_separator='|', or write a list in .jsonl or .parquet"
            )
        if isinstance(value, str):
            value = [part for part in value.split(self.separator) if part.strip()]
        if not isinstance(value, list):
            raise DataError(
                f"{where}: the labels ({self.name!r}) are {quoted(value)}; write a list of labels, [] for a row "
                "without any, or columns of 0 and 1 (data.label_columns)"
            )
        labels = {label_text(where, self.name, one) for one in value}
        return Example("", tuple(sorted(labels)), 0, several=True)


@dataclass(frozen=True)
class FlagColumns:
    """A column for each label, with 1 or true in the rows that have it, and 0 or false in the others."""

    names: tuple[str, ...]

    def read(self, where: str, row: Mapping[str, Any]) -> Example:
        """Return the labels in alphabetical order."""
        labels = (name for name in self.names if _flag(where, name, row[name]))
        return Example("", tuple(sorted(labels)), 0, several=True)


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers."""

    name: str

    @property
    def names(self) -> Sequence[str]:
        """The name of the column."""
        return (self.name,)

    def read(self, where: str, row: Mapping[str, Any]) -> Example:
        """Return the number."""
        return Example("", (), 0, value=_number(where, self.name, row[self.name]))


def _flag(where: str, column: str, value: Any) -> bool:
    written = value.strip().lower() if isinstance(value, str) else str(value).lower()
    if written not in _FLAGS:
        raise DataError(
            f"{where}: {column!r} is {quoted(value)}; a column of data.label_columns holds 1 in the rows that "
            "have the label and 0 in the others"
        )
    return _FLAGS[written]


def _number(where: str, column: str, value: Any) -> float:
    number = math.nan
    # Python also reads 1_000, which no table means.
    if not isinstance(value, bool) and not (isinstance(value, str) and "_" in value):
        with suppress(ValueError, TypeError, OverflowError):
            number = float(value)
    if not abs(number) <= _LARGEST:
        raise DataError(
            f"{where}: the number ({column!r}) is {quoted(value)}; write a finite number up to {_LARGEST:g} with "
            "a decimal point, such as 3.5, or remove the row"
        )
    return number

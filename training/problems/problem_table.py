"""The problem of a recipe or of a bundle, by the name of its type."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.training.problems.classes import ClassProblem
from rootstock.training.problems.label_sets import LabelSetProblem
from rootstock.training.problems.numbers import NumberProblem
from rootstock.training.problems.problem import Problem
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION

_PROBLEMS: dict[str | None, type[Problem]] = {MULTI: LabelSetProblem, REGRESSION: NumberProblem}


def problem_of(problem_type: str | None, labels: Sequence[str]) -> Problem:
    """Return the problem of a type. None, as tokens have it, and one label a text mean classes."""
    return _PROBLEMS.get(problem_type, ClassProblem)(labels)

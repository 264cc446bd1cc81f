"""The problem types of a recipe for texts, under transformers' names, and the keys that only some have."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from rootstock.training.recipe.task_keys import is_set

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"

# By the key: the problem types that have it.
_KEYS: dict[str, tuple[ProblemType, ...]] = {
    "data.label_separator": (MULTI,),
    "data.label_columns": (MULTI,),
    **dict.fromkeys(
        (
            # Figures by group, refusals, contrast, mixed rows and smoothed targets are those of one class a row.
            "data.group_column",
            "evaluation.out_of_scope",
            "domain_adaptation",
            "augmentation.mixup_alpha",
            "training.class_weights",
            "training.label_smoothing_factor",
            "training.contrastive_epochs",
            "training.contrastive_weight",
            "training.contrastive_temperature",
            "training.label_names",
        ),
        (SINGLE,),
    ),
}


def check_problem(recipe: BaseModel, problem_type: ProblemType | None) -> None:
    """Raise ValueError for a key that the recipe sets and its problem type does not have."""
    problem = problem_type or SINGLE
    for key, types in _KEYS.items():
        if problem not in types and _differs(recipe, key):
            raise ValueError(
                f"{key} is for {' and '.join(types)}; problem_type is {problem}; leave it out, or change "
                "problem_type"
            )
    data: Any = getattr(recipe, "data")  # noqa: B009 - BaseModel has no such field
    if data.label_columns is None:
        return
    doubled = sorted({name for name in data.label_columns if data.label_columns.count(name) > 1})
    if doubled:
        raise ValueError(f"data.label_columns: {doubled[0]!r} occurs twice; keep one")
    for key in ("label_column", "label_separator"):
        if _differs(recipe, f"data.{key}"):
            raise ValueError(f"data.{key} and data.label_columns name the labels twice; keep one of them")


def _differs(recipe: BaseModel, key: str) -> bool:
    """Return True if a recipe sets a key to another value than its default, which any problem may have."""
    if not is_set(recipe, key):
        return False
    *sections, last = key.split(".")
    section: Any = recipe
    for name in sections:
        section = getattr(section, name)
    default = type(section).model_fields[last].default
    return bool(getattr(section, last) != default)

"""The text of a label, whatever the type of its value in a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from rootstock.training.characters import quoted
from rootstock.training.data.example import Rows
from rootstock.training.errors import DataError

# A whole number, with a fraction of zeros or without one. 1.10 may be a version and not 1.1.
_WHOLE = re.compile(r"(-?[0-9]+)(\.0+)?")


def label_text(where: str, column: str, value: Any) -> str:
    """Return the text of a label: a text as it stands, a number or a boolean as JSON writes it.

    A text such as `NA`, `None` or `nan` is a label like any other. Raise DataError for a missing value, for a
    number that is not finite, and for a value of another type.
    """
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, list):
        raise DataError(
            f"{where}: the label ({column!r}) is {quoted(value)}, a list; a row has one label here: choose one, "
            "or set problem_type: multi_label_classification"
        )
    problem = "is empty" if value is None or isinstance(value, str) else f"is {quoted(value)}, not text"
    raise DataError(
        f"{where}: the label ({column!r}) {problem}; write a label as a text, such as NA, or remove the row"
    )


def check_forms(parts: Iterable[Rows]) -> None:
    """Raise DataError for two labels that are two forms of one value, such as 1 and 1.0, or true and True.

    Such labels come from columns of different types, and a model would learn them as two classes.
    """
    first: dict[str, tuple[str, str]] = {}
    for rows in parts:
        for example in rows.examples:
            for label in example.labels if not example.words else ():
                if (value := _value(label)) is None:
                    continue
                place = str(example.file or f"{rows.path}, line {example.line}")
                other, where = first.setdefault(value, (label, place))
                if other != label:
                    raise DataError(
                        f"{place}: label {quoted(label)} is another form of {quoted(other)} ({where}); write "
                        "both in one form"
                    )


def _value(label: str) -> str | None:
    """Return the one form of a boolean or a whole number that a label writes; None for any other text."""
    if (folded := label.casefold()) in ("true", "false"):
        return folded
    return whole[1] if (whole := _WHOLE.fullmatch(label)) else None

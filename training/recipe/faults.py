"""The message of a recipe that is not valid: every key that is missing, unknown or wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rootstock.training.characters import quoted

_MOST = 20


def fault_lines(error: ValidationError, root: type[BaseModel]) -> str:
    """Return one fault in one line, or several below their number, a line for each.

    The line of a missing key also says what the key means.
    """
    faults: dict[str, list[str]] = {}
    for one in error.errors(include_url=False):
        faults.setdefault(_key(one["loc"]), []).append(_message(one, root))
    # A value that may have several forms has a message for each.
    lines = [(f"{key}: " if key else "") + "; or ".join(messages) for key, messages in faults.items()]
    if len(lines) == 1:
        return lines[0]
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return "\n  ".join([f"{len(lines)} keys are missing or wrong", *lines[:_MOST], *more])


def _key(location: tuple[int | str, ...]) -> str:
    """Return the dotted key of a fault, without pydantic's names of a value's forms, such as list[str]."""
    return ".".join(str(part) for part in location if "[" not in str(part))


def _message(error: Mapping[str, Any], root: type[BaseModel]) -> str:
    location, message = error["loc"], str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"unknown key; known: {', '.join(_fields_beside(location, root))}"
    if error["type"] == "missing":
        return f"this key is missing: {_meaning(_fields_beside(location, root)[str(location[-1])])}"
    return message if error["type"] == "value_error" else f"{quoted(error['input'])}: {message}"


def _meaning(field: FieldInfo) -> str:
    """Return a field's description within a sentence; a name in capitals keeps them."""
    text = field.description or ""
    return re.sub(r"^[A-Z](?=[a-z ])", lambda first: first[0].lower(), text).removesuffix(".")


def _fields_beside(location: tuple[int | str, ...], root: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of the section that holds the key at `location`."""
    section = root
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        section = next((i for i in inner if isinstance(i, type) and issubclass(i, BaseModel)), section)
    return section.model_fields

"""Writes values in messages and in YAML, and checks that values from files are valid Unicode text."""

from __future__ import annotations

import json
from reprlib import Repr
from typing import Any

import yaml

from rootstock.training.errors import DataError, TrainingError

# A quoted value fits on one line of a terminal.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def quoted(value: Any) -> str:
    """Return a value as Python writes it, shortened to quote it in a message."""
    return _SHORT.repr(value)


def on_one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which a terminal or YAML would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def yaml_text(value: Any, width: int = 80) -> str:
    """Return a value as YAML, with its keys in their order and lines of about `width` characters."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=width)
    if "\x85" not in text:
        return text
    # PyYAML leaves U+0085 as it is, and reads it as a line feed.
    escaped: str = yaml.safe_dump(value, sort_keys=False, width=width)
    return escaped


def check_characters(value: Any, where: str, kind: type[TrainingError] = DataError) -> None:
    """Raise `kind` for half of a surrogate pair, which JSON and YAML can escape but UTF-8 cannot hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise kind(f"{where}: {half} is half of a character; write both escapes, or the character") from None

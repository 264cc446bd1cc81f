"""Characters of files that people write: quoted in messages, and checked to be text."""

from __future__ import annotations

import json
from reprlib import Repr
from typing import Any

from rootstock.training.errors import DataError, TrainingError

# A quoted value is as long as one line of a terminal.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """Return a value as a message quotes it, shortened."""
    return _SHORT.repr(value)


def check_characters(value: Any, where: str, kind: type[TrainingError] = DataError) -> None:
    """Raise `kind` for half of a surrogate pair, which JSON and YAML can escape and no text can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise kind(f"{where}: {half} is half of a character; write both escapes, or the character") from None

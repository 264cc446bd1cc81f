"""A foundation's files on disk, and the error of a foundation that cannot be used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class FoundationError(Exception):
    """A foundation cannot be used; the message names the setting or file, its state and the remedy."""


@dataclass(frozen=True)
class FoundationFiles:
    """A foundation's folder on disk, with its name and its pinned revision.

    `setting` is the value that the user gave to find it.
    """

    folder: Path
    name: str
    revision: str | None
    setting: str = field(default="", compare=False)

    @property
    def other_names(self) -> tuple[str, ...]:
        """Return the other names that an adapter's config may give this foundation."""
        paths = (str(self.folder), str(self.folder.resolve()))
        return tuple(dict.fromkeys(filter(None, (self.setting, *paths))))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a foundation's file; raise FoundationError if it cannot be read."""
    value = json_value(path)
    if not isinstance(value, dict):
        raise FoundationError(f"{path} holds {type(value).__name__}, not an object")
    return value


def json_value(path: Path) -> Any:
    """Return the JSON value in a foundation's file; raise FoundationError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FoundationError(f"{path} cannot be read: {error}") from None

"""A foundation's files on disk, and the error of a foundation that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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

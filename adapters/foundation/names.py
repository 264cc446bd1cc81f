"""Chooses the reference of each foundation of a server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rootstock.adapters.foundation.files import FoundationError
from rootstock.adapters.foundation.named import NAMED
from rootstock.adapters.reference import FOUNDATION, is_name

_NO_NAME = re.compile(r"[^a-z0-9._-]+")


def reference_names(settings: Sequence[str]) -> list[str]:
    """Return the reference of each foundation of a server: `foundation` if there is only one.

    With several, a named foundation keeps its name, and a folder or a hub id gives its last part. Raise
    FoundationError if two references are the same or one is not a valid name.
    """
    if len(settings) == 1:
        return [FOUNDATION]
    names = [_name(setting) for setting in settings]
    for name, count in Counter(names).items():
        if count > 1:
            raise FoundationError(
                f"ROOTSTOCK_FOUNDATIONS holds {count} foundations of the name {name!r}; rename one of the folders"
            )
    return names


def _name(setting: str) -> str:
    folder = Path(setting).expanduser()
    last = setting.partition("@")[0].rpartition("/")[2]
    if setting not in NAMED and folder.is_dir():
        last = folder.resolve().name
    name = _NO_NAME.sub("-", last.lower()).strip("-.")
    if not is_name(name) or name == FOUNDATION:
        raise FoundationError(
            f"the foundation {setting!r} gives the name {name!r}, which no request can use; rename the folder"
        )
    return name

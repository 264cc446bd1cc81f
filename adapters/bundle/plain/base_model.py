"""Compares the base model that a plain PEFT folder names with the foundation.

Only the names can be compared, because the folder holds nothing else that identifies the base. The shapes of the
tensors do not: an adapter also fits another model of the same shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Protocol

from rootstock.adapters.bundle.archive import CONFIG
from rootstock.adapters.spec import Rejected

BASE = "base_model_name_or_path"
# The reference to the server's first foundation.
FIRST = "foundation"
# A path has at most 4,096 characters on Linux. An uploaded name of millions would take long to match.
_MAX_NAME = 4096
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# The hub's client keeps a snapshot of org/name at .../models--org--name/snapshots/<commit>.
_SNAPSHOT = re.compile(r"(?:.*/)?models--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/[^/]+", re.DOTALL)


class NamedModel(Protocol):
    """A foundation by its name and its other names on this machine."""

    @property
    def name(self) -> str: ...
    @property
    def other_names(self) -> tuple[str, ...]: ...


def check_base(named: Any, given: str | None, foundation: NamedModel) -> str:
    """Compare an adapter's base with the foundation, and return for a warning which name was compared.

    `named` is the base's name in the adapter's config. `given` is the form field `foundation`, which overrides
    it. A config without a name counts as made for this foundation. Raise Rejected (check "foundation") if the
    base is another model.
    """
    if given is not None:
        if given != FIRST and not is_same(given, foundation.name, foundation.other_names):
            raise Rejected(
                "foundation",
                "foundation",
                f"{given!r} is not served here; this foundation is {foundation.name!r}",
            )
        return f"the form field `foundation`, {given!r}"
    if named is None or named == "":
        return f"no name, since {BASE} has none"
    if not isinstance(named, str):
        raise Rejected("schema", f"{CONFIG}: {BASE}", f"{named!r} is not a string")
    if is_same(named, foundation.name, foundation.other_names):
        return f"{BASE}, {named!r}"
    raise Rejected(
        "foundation",
        f"{CONFIG}: {BASE}",
        f"the adapter was trained on {named!r}; this foundation is {foundation.name!r}; if both are the same "
        f"model, give the form field `foundation` with {foundation.name!r}",
    )


def is_same(named: str, name: str, others: Iterable[str] = ()) -> bool:
    """Return whether a model's name or path means the foundation with this name or these other names.

    Two hub ids must agree in full. Otherwise the last part is enough, because users train from a copy of the
    model in another folder.
    """
    if len(named) > _MAX_NAME:
        return False
    asked = _canonical(named)
    known = [_canonical(other) for other in (name, *others)]
    if asked in known:
        return True
    last = PurePosixPath(asked).name
    models = [known[0], *filter(_HUB_ID.fullmatch, known[1:])]
    is_id = _HUB_ID.fullmatch(asked) is not None
    return any(
        last == PurePosixPath(model).name != "" for model in models if not (is_id and _HUB_ID.fullmatch(model))
    )


def _canonical(name: str) -> str:
    """Return a name without its case (the hub ignores it), revision and separators, which identify no model."""
    name = name.strip().replace("\\", "/").rstrip("/").removeprefix("./")
    if snapshot := _SNAPSHOT.fullmatch(name):
        name = f"{snapshot['org']}/{snapshot['name']}"
    name = re.sub(r"@[0-9a-f]{40}$", "", name)
    return name.casefold()

"""The base model that a plain PEFT folder names, compared with the foundation by name.

Names are compared, for the folder holds nothing else: two models of the same shapes take each other's adapters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, Protocol

from rootstock.adapters.bundle.archive import CONFIG
from rootstock.adapters.spec import Rejected

BASE = "base_model_name_or_path"
# The reference of the server's first foundation.
FIRST = "foundation"
# A path has at most 4,096 characters on Linux; an uploaded name of millions would take long to match.
_MAX_NAME = 4096
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# Where the hub's client keeps a snapshot of org/name: .../models--org--name/snapshots/<commit>
_SNAPSHOT = re.compile(r"(?:.*/)?models--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/[^/]+", re.DOTALL)


class NamedModel(Protocol):
    """A foundation with its name, and its other names on this machine."""

    @property
    def name(self) -> str: ...
    @property
    def other_names(self) -> tuple[str, ...]: ...


def check_base(named: Any, given: str | None, foundation: NamedModel) -> str:
    """Return how the base was compared, in words.

    Raise Rejected (check "foundation") where it is another model.
    `named` is what the adapter's config calls its base, `given` the form field `foundation`, which overrides it.
    A config without a name is taken for one of this foundation's.
    """
    if given is not None:
        if given != FIRST and not is_same(given, foundation.name, foundation.other_names):
            raise Rejected(
                "foundation", "foundation", f"{given!r} is not served here; served: {foundation.name!r}"
            )
        return f"the form field `foundation`, {given!r}"
    if named is None or named == "":
        return f"no name, for {BASE} has none"
    if not isinstance(named, str):
        raise Rejected("schema", f"{CONFIG}: {BASE}", f"{named!r} is not a string")
    if is_same(named, foundation.name, foundation.other_names):
        return f"{BASE}, {named!r}"
    raise Rejected(
        "foundation",
        f"{CONFIG}: {BASE}",
        f"the adapter was trained on {named!r}; this foundation is {foundation.name!r}; if the two are one "
        f"model, give the form field `foundation` with {foundation.name!r}",
    )


def is_same(named: str, name: str, others: Iterable[str] = ()) -> bool:
    """Return whether a name or path of a model means the foundation of this name, or of these other names.

    Two hub ids are compared in full. Otherwise the last part is enough: users train from a copy of the model in
    a folder of their own.
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
    """Return a name without what does not tell models apart: case (the hub takes any), revision, separators."""
    name = name.strip().replace("\\", "/").rstrip("/").removeprefix("./")
    if snapshot := _SNAPSHOT.fullmatch(name):
        name = f"{snapshot['org']}/{snapshot['name']}"
    name = re.sub(r"@[0-9a-f]{40}$", "", name)
    return name.casefold()

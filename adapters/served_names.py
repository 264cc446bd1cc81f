"""The names under which requests may ask for a model, besides the references of adapters and foundations."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from copy import copy

from rootstock.adapters.reference import DEFAULT_TENANT, FOUNDATION, Reference, shown

_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,127}", re.ASCII)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class ServedNames:
    """The names that a server answers to, each with the reference that it means, and the reading of references.

    The names are those of the setting, and the hub's names of the foundations. Upper case and lower case are the
    same in names, but not in aliases.
    """

    def __init__(self, names: Mapping[str, str], foundations: Mapping[str, str]) -> None:
        """Take the setting's names, and the checkpoint's name of each foundation by its reference."""
        self._chosen = dict(names)
        # A checkpoint's name without a slash is a folder's, and an adapter may have the same.
        hub = {name.lower(): reference for reference, name in foundations.items() if _HUB_ID.fullmatch(name)}
        self._names = {**hub, **self._chosen}

    def of_tenant(self, tenant: str, foundations: Container[str]) -> ServedNames:
        """Return the names for a tenant's requests.

        They mean the adapters of the default tenant, except for references to foundations.
        """
        if tenant == DEFAULT_TENANT:
            return self
        names = copy(self)
        names._chosen, names._names = (
            {name: one if one in foundations else _of_default(one) for name, one in known.items()}
            for known in (self._chosen, self._names)
        )
        return names

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the names of the setting, each with its reference."""
        return iter(self._chosen.items())

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def reference(self, asked: str) -> str:
        """Return the reference that a request means: that of a served name, else with its name in lower case.

        It may still be none that exists, or not even one that can.
        """
        if not asked.isascii():
            return asked
        if (known := self._names.get(asked.lower())) is not None:
            return known
        return lowered(asked)


def read_names(setting: str) -> dict[str, str]:
    """Return the names in `name=reference,…`, in lower case. Raise ValueError or InvalidReference."""
    names: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        name, equals, reference = (piece.strip() for piece in part.partition("="))
        name = name.lower()
        if not equals or not _NAME.fullmatch(name) or name == FOUNDATION:
            raise ValueError(
                f"{shown(part)} is not a name and a reference; give name=reference, with at most 128 characters "
                "of a-z 0-9 . _ - / : in the name"
            )
        if name in names:
            raise ValueError(f"{name!r} is there twice; give it one reference")
        names[name] = str(Reference.parse(lowered(reference)))
    return names


def _of_default(reference: str) -> str:
    return reference if "/" in reference else f"{DEFAULT_TENANT}/{reference}"


def lowered(reference: str) -> str:
    """Return a reference with its name in lower case."""
    name, at, selector = reference.partition("@")
    return f"{name.lower()}{at}{selector}"

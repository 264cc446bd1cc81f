"""Reads a file that declares adapters: TOML with a table for each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rootstock.adapters.errors import InvalidName, InvalidReference
from rootstock.adapters.reference import LIVE, check_alias, check_name

# The fields of a plain PEFT folder, with what the file has to give.
_PLAIN: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "labels": list,
    "problem_type": str,
    "max_length": int,
    "foundation": str,
}
_KNOWN = ("path", "source", "aliases", *_PLAIN)


class InvalidDeclaration(ValueError):
    """A file that does not declare adapters as it has to; the message names the table and the remedy."""


@dataclass(frozen=True)
class DeclaredAdapter:
    """An adapter of a file: its name, where its content is, and the aliases that point at that content.

    One of the two is set: `path`, a file or folder on this machine, or `source`, an address from which the server
    fetches. `plain` holds the fields of a plain PEFT folder.
    """

    name: str
    path: Path | None
    source: str | None
    aliases: tuple[str, ...] = (LIVE,)
    plain: Mapping[str, Any] = field(default_factory=dict)


def read_declarations(file: Path) -> list[DeclaredAdapter]:
    """Return the adapters that a file declares, in its order. Paths in it begin at its folder.

    Raise InvalidDeclaration if it declares them wrongly, and OSError if it cannot be read.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidDeclaration(f"{file} is not TOML: {error}") from None
    if not tables:
        raise InvalidDeclaration(f"{file} declares no adapter; give each a table, such as [support-intents]")
    return [_declared(name, table, file.parent) for name, table in tables.items()]


def _declared(name: str, table: object, folder: Path) -> DeclaredAdapter:
    try:
        check_name(name)
        if not isinstance(table, dict):
            raise InvalidDeclaration(f"[{name}]: {name} is no table; write [{name}] on a line")
        if unknown := sorted(table.keys() - set(_KNOWN)):
            known = ", ".join(_KNOWN)
            raise InvalidDeclaration(f"[{name}]: {', '.join(unknown)} is no field of an adapter; known: {known}")
        path, source = (_text(name, table, key) for key in ("path", "source"))
        if (path is None) == (source is None):
            raise InvalidDeclaration(
                f"[{name}]: give path, of this machine, or source, an address; one of the two"
            )
        aliases = _texts(name, table, "aliases") if "aliases" in table else (LIVE,)
        for alias in aliases:
            check_alias(alias)
    except (InvalidName, InvalidReference) as error:
        raise InvalidDeclaration(f"[{name}]: {error}") from None
    plain = {key: _plain(name, table, key) for key in _PLAIN if key in table}
    return DeclaredAdapter(name, None if path is None else folder / path, source, aliases, plain)


def _text(name: str, table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InvalidDeclaration(f"[{name}]: {key} is {value!r}; give a text")
    return value


def _texts(name: str, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidDeclaration(f"[{name}]: {key} is {value!r}; give a list of texts")
    return tuple(value)


def _plain(name: str, table: Mapping[str, Any], key: str) -> Any:
    if key == "labels":
        return _texts(name, table, key)
    value = table[key]
    if not isinstance(value, _PLAIN[key]) or isinstance(value, bool):
        wanted = "a whole number" if _PLAIN[key] is int else "a text"
        raise InvalidDeclaration(f"[{name}]: {key} is {value!r}; give {wanted}")
    return value

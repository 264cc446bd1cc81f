"""The registry's answers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Resolution:
    """The one version that a reference meant when it was resolved.

    `foundation` is its fingerprint; None where a server of one foundation published the version before the
    registry kept it.
    """

    name: str
    version: int
    digest: str
    foundation: str | None = None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Content to publish under a name; `size` in bytes, `foundation` its fingerprint."""

    name: str
    digest: str
    task: str
    verification: dict[str, Any]
    size: int
    foundation: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The result of publishing: `created` is false where the content was there already.

    `live` is as it is now.
    """

    name: str
    version: int
    digest: str
    created: bool
    live: int | None


@dataclass(frozen=True, slots=True)
class AliasPointer:
    """The version that an alias points at."""

    name: str
    alias: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """An adapter in a list.

    `task` and `foundation` are the live version's, or else the newest's, or None without versions.
    """

    name: str
    live: int | None
    versions: list[int]
    task: str | None
    aliases: dict[str, int]
    foundation: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Adapters in order of name; `next` is what to pass as `after` for the rest, or None at the end."""

    adapters: list[AdapterSummary]
    next: str | None


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """Everything recorded about a version; times are UTC, sizes are bytes."""

    name: str
    version: int
    digest: str
    task: str
    status: str
    created_at: datetime
    size: int
    verification: dict[str, Any]
    foundation: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterDetail:
    """Everything recorded about an adapter; versions are in ascending order."""

    name: str
    live: int | None
    task: str | None
    aliases: dict[str, int]
    created_at: datetime
    versions: list[VersionDetail]


@dataclass(frozen=True, slots=True)
class Event:
    """One change that was made; `detail` depends on `what`."""

    id: int
    at: datetime
    what: str
    name: str
    version: int | None
    alias: str | None
    detail: dict[str, Any]

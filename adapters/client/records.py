"""The results of publishing and generating: records with the fields that every server states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rootstock.adapters.client.errors import Unreadable


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """The base of the records; `document` is the server's JSON with all its fields."""

    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the record in a JSON object; raise Unreadable if a field is missing."""
        try:
            return cls(**cls._fields(document), document=document)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Unreadable(f"the answer is no {cls.__name__} ({error!r})") from error

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        names = cls.__dataclass_fields__.keys() - {"document"}
        return {name: document[name] for name in names}


def shares_of(candidates: Mapping[str, float]) -> dict[int, float]:
    """Return the percents of a split by version, of which JSON makes texts."""
    return {int(version): float(percent) for version, percent in dict(candidates).items()}


@dataclass(frozen=True, kw_only=True)
class PublishedRecord(ServerRecord):
    """A version that a server has published. `verification` reports the checks.

    `created` is false if the name already had a version with this content, so that there is no new one.
    `awaits_approval` tells that somebody else has to make it live.
    """

    name: str
    version: int
    digest: str
    task: str
    verification: Mapping[str, Any]
    created: bool = True
    awaits_approval: bool = False

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        fields = {name: document[name] for name in ("name", "version", "digest", "task", "verification")}
        return {**fields, "awaits_approval": bool(document.get("awaits_approval"))}


@dataclass(frozen=True, kw_only=True)
class VersionRecord(ServerRecord):
    """A version of an adapter; `size` is in bytes, and `residency` is `slot`, `memory` or `store`."""

    version: int
    digest: str
    task: str
    status: str
    size: int
    residency: str


@dataclass(frozen=True, kw_only=True)
class AdapterRecord(ServerRecord):
    """An adapter with its aliases, and its versions with the oldest first. `live` is None without that alias.

    `description` says what the live version is, else the newest; None from a server that does not describe.
    `splits` has the percents that other versions answer of an alias's requests, by alias and version.
    """

    name: str
    task: str | None
    live: int | None
    aliases: Mapping[str, int]
    versions: tuple[VersionRecord, ...]
    description: Mapping[str, Any] | None
    splits: Mapping[str, Mapping[int, float]]

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        splits = dict(document.get("splits") or {})
        return {
            **{name: document[name] for name in ("name", "task", "live", "aliases")},
            "splits": {alias: shares_of(shares) for alias, shares in splits.items()},
            "versions": tuple(map(VersionRecord.read, document["versions"])),
            "description": document.get("description"),
        }


@dataclass(frozen=True, kw_only=True)
class AdapterEntry(ServerRecord):
    """An adapter in a list, with the numbers of its versions, and where its live one is."""

    name: str
    task: str | None
    live: int | None
    aliases: Mapping[str, int]
    versions: tuple[int, ...]
    residency: str | None

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**super()._fields(document), "versions": tuple(document["versions"])}


@dataclass(frozen=True, kw_only=True)
class AdapterPage(ServerRecord):
    """A page of a list; `next` is the name after which the next page begins, or None."""

    adapters: tuple[AdapterEntry, ...]
    next: str | None

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {"adapters": tuple(map(AdapterEntry.read, document["adapters"])), "next": document["next"]}


@dataclass(frozen=True, kw_only=True)
class AliasRecord(ServerRecord):
    """An alias, and the version that it points at."""

    name: str
    alias: str
    version: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class DeletedRecord(ServerRecord):
    """A deleted version, which can come back with its aliases until `purged_at`; times are ISO 8601."""

    version: int
    digest: str
    task: str
    size: int
    deleted_at: str
    purged_at: str
    aliases: tuple[str, ...]

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**super()._fields(document), "aliases": tuple(document["aliases"])}


@dataclass(frozen=True, kw_only=True)
class UndeletedRecord(ServerRecord):
    """The versions of an adapter that came back, and the aliases that came back with them."""

    name: str
    versions: tuple[int, ...]
    aliases: Mapping[str, int]

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**super()._fields(document), "versions": tuple(document["versions"])}


@dataclass(frozen=True, kw_only=True)
class SharingRecord(ServerRecord):
    """An adapter, and whether all tenants can use it."""

    name: str
    shared: bool


@dataclass(frozen=True, kw_only=True)
class SplitRecord(ServerRecord):
    """The split of an alias: the percent of its requests that each candidate answers, by version.

    `version` is the one that the alias points at. It answers the rest.
    """

    name: str
    alias: str
    version: int
    candidates: Mapping[int, float]

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**super()._fields(document), "candidates": shares_of(document["candidates"])}


@dataclass(frozen=True, kw_only=True)
class TextRecord(ServerRecord):
    """A generated text, the first of an answer. `finish_reason` is `stop`, `length` or `tool_calls`.

    The text is empty if the answer is a call of tools, which `document` holds.
    """

    text: str
    finish_reason: str
    digest: str
    version: int | None

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        choice = document["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return {
            "text": text or "",
            "finish_reason": choice["finish_reason"],
            "digest": document["digest"],
            "version": document["version"],
        }


@dataclass(frozen=True, kw_only=True)
class KeyEntry(ServerRecord):
    """A key without its secret. `state` is `good`, `expired` or `revoked`; times are ISO 8601 in UTC.

    A limit of None does not exist; `stored_mb` is in MiB.
    """

    id: str
    tenant: str
    role: str
    label: str
    state: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    stored_mb: int | None


@dataclass(frozen=True, kw_only=True)
class NewKeyEntry(KeyEntry):
    """A key that was just made. `key` is its text, which the server shows only once."""

    key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class QuotaEntry(ServerRecord):
    """The limits of a tenant, None where there is none, and the bytes of the bundles that it stores."""

    tenant: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    stored_mb: int | None
    stored_bytes: int


@dataclass(frozen=True)
class RankedText:
    """A document of a ranking: its position in the request, its score, and the digest of what scored it."""

    index: int
    score: float
    document: str | Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class BundleFile:
    """A version's bundle in a file, a zip of `size` bytes."""

    name: str
    version: int
    path: Path
    size: int

    @classmethod
    def write(cls, name: str, version: int, data: bytes, to: Path) -> Self:
        """Write a bundle to the file `to`, or to NAME-VERSION.zip in the folder `to`; replace a file there."""
        path = to / f"{name}-{version}.zip" if to.is_dir() else to
        path.write_bytes(data)
        return cls(name, version, path, len(data))

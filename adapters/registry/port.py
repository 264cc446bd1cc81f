"""The contract of a registry: names, versions, aliases and events."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Protocol

from rootstock.adapters.reference import Reference
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AliasPointer,
    Event,
    NewVersion,
    Page,
    Published,
    Resolution,
    VersionDetail,
)


class Registry(Protocol):
    """Remembers what is published under a name, what its aliases point at, and what happened.

    Safe for many threads and processes. Every change is one transaction, and an acknowledged one is durable.
    """

    def resolve(self, reference: str | Reference) -> Resolution:
        """Return the one version that `reference` means now; a bare name means `live`."""

    def publish(
        self,
        name: str,
        digest: str,
        *,
        task: str,
        verification: dict[str, Any],
        size: int,
        activate: bool = True,
        foundation: str | None = None,
    ) -> Published:
        """Give `digest` the next number under `name`, or find the one it has; `activate` moves `live` to it."""

    def publish_all(self, versions: Sequence[NewVersion]) -> builtins.list[Published]:
        """Publish each and move `live` to it, in one transaction; what a name holds already changes nothing."""

    def set_alias(self, name: str, alias: str, version: int) -> AliasPointer:
        """Point `alias` of `name` at `version`."""

    def rollback(self, name: str) -> AliasPointer:
        """Point `live` at the version before, skipping deleted ones; else raise NoPreviousVersion."""

    def delete_version(self, name: str, version: int, *, force: bool = False) -> str:
        """Remove a version and return its digest.

        Raise VersionInUse where aliases point at it, unless `force`.
        """

    def delete_adapter(self, name: str) -> builtins.list[str]:
        """Remove an adapter with its versions and aliases, and return the digests in order of version."""

    def list(self, limit: int = 100, after: str | None = None) -> Page:
        """Return at most `limit` adapters whose names come after `after`, in order of name."""

    def show(self, name: str) -> AdapterDetail:
        """Return everything about one adapter; else UnknownAdapter."""

    def version(self, name: str, number: int) -> VersionDetail:
        """Return everything about one version; else UnknownAdapter or UnknownVersion."""

    def events(self, name: str | None = None, limit: int = 100) -> builtins.list[Event]:
        """Return at most `limit` events, the newest first, of one adapter, deleted or not, or of all."""

    def count(self) -> int:
        """Return the number of adapters."""

    def digest_in_use(self, digest: str) -> bool:
        """Tell whether any version of any adapter stands for `digest`."""

    def ping(self) -> None:
        """Return where the registry answers; else raise RegistryUnavailable."""

    def close(self) -> None:
        """Let the registry go; every later use is RegistryUnavailable."""

"""The interface of a registry of names, versions, aliases and events."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rootstock.adapters.reference import Reference
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AliasPointer,
    AliasSplit,
    DeletedVersion,
    Event,
    IndexedVersion,
    NewVersion,
    Page,
    Published,
    Resolution,
    Sharing,
    Undeleted,
    VersionDetail,
)
from rootstock.adapters.registry.rollout_records import NamedRule, NamedShadow, RollbackRule, Rollout, RuleVerdict


class Registry(Protocol):
    """A store of published versions by name, the targets of aliases, and the events.

    It is safe for many threads and processes. Every change is one transaction, and a change is durable when its
    call returns.
    """

    def resolve(self, reference: str | Reference) -> Resolution:
        """Return the one version that `reference` means now; a name alone means its alias `live`."""

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
        """Give `digest` the next version number under `name`, or find the number that it has already.

        With `activate`, point `live` at that version.
        """

    def publish_all(self, versions: Sequence[NewVersion]) -> builtins.list[Published]:
        """Publish the versions and point `live` at each, in one transaction.

        A version whose digest the name holds already changes nothing.
        """

    def set_alias(self, name: str, alias: str, version: int) -> AliasPointer:
        """Point `alias` of `name` at `version`."""

    def request_activation(self, name: str, version: int) -> None:
        """Record the request that `live` should point at `version`, unless that is the version's last event."""

    def rollback(self, name: str) -> AliasPointer:
        """Point `live` at its previous version that still exists; raise NoPreviousVersion if there is none."""

    def set_shadow(self, name: str, version: int, percent: float) -> NamedShadow:
        """Let a version compute a share of live's requests without answering them.

        Raise InvalidShadow if it cannot.
        """

    def end_shadow(self, name: str) -> NamedShadow:
        """End the shadow of an adapter and return it; raise NoShadow if it has none."""

    def set_rule(self, name: str, rule: RollbackRule) -> NamedRule:
        """Set the rollback rule of an adapter; raise InvalidRule for a value outside its bounds."""

    def rule(self, name: str) -> NamedRule:
        """Return the rollback rule of an adapter; raise NoRule if it has none."""

    def remove_rule(self, name: str) -> NamedRule:
        """Remove the rollback rule of an adapter and return it; raise NoRule if it has none."""

    def set_split(self, name: str, alias: str, candidates: Mapping[int, float]) -> AliasSplit:
        """Let versions answer these percents of an alias's requests, in place of the split that it has.

        A move of the alias ends the split. Raise InvalidSplit for shares that versions cannot have.
        """

    def end_split(self, name: str, alias: str, detail: Mapping[str, Any] | None = None) -> AliasPointer:
        """Let an alias mean one version again; raise NoSplit if it has no split. The event has `detail` too."""

    def share(self, name: str, shared: bool) -> Sharing:
        """Let all tenants use an adapter, or its tenant alone."""

    def delete_version(self, name: str, version: int, *, force: bool = False, restorable: bool = False) -> str:
        """Delete a version and return its digest; with `restorable`, it can come back until it is purged.

        Raise VersionInUse if an alias, a split or a shadow uses it, unless `force`, which ends these too. Without
        `restorable`, a version that is deleted already is purged.
        """

    def delete_adapter(self, name: str, *, restorable: bool = False) -> builtins.list[str]:
        """Delete an adapter with its versions and aliases; return the digests in order of version number.

        With `restorable`, the versions can come back until they are purged. Without it, those that are deleted
        already are purged too.
        """

    def deleted(self, name: str) -> builtins.list[DeletedVersion]:
        """Return the versions of an adapter that can come back, in order of number; it may be deleted itself."""

    def undelete(self, name: str, version: int | None = None) -> Undeleted:
        """Bring a deleted version back with its aliases that are free; None: all that the adapter had.

        Raise UnknownVersion if there is none, and AlreadyPublished if a later version has its content.
        """

    def surplus(self, name: str, newest: int) -> builtins.list[str]:
        """Return the digests of the versions that `retire` would delete now."""

    def retire(self, name: str, newest: int, *, restorable: bool = False) -> builtins.list[str]:
        """Delete all versions but the newest ones and those in use, as `delete_version` does; return the digests.

        In use are versions of aliases, splits and shadows, and the one that a rollback makes live.
        """

    def list(self, limit: int = 100, after: str | None = None, search: str = "") -> Page:
        """Return at most `limit` adapters in order of name: names after `after` that contain `search`."""

    def show(self, name: str) -> AdapterDetail:
        """Return everything about one adapter; raise UnknownAdapter if there is none."""

    def version(self, name: str, number: int) -> VersionDetail:
        """Return everything about one version; raise UnknownAdapter or UnknownVersion if there is none."""

    def events(
        self, name: str | None = None, limit: int = 100, before: int | None = None
    ) -> builtins.list[Event]:
        """Return at most `limit` events, newest first, of all adapters or of one, which may be deleted.

        With `before`, return only events older than the one with that id.
        """

    def count(self) -> int:
        """Return the number of adapters."""

    def digest_in_use(self, digest: str) -> bool:
        """Return whether any version of any tenant's adapter has this digest, deleted ones included."""

    def is_published(self, digest: str) -> bool:
        """Return whether requests can mean a version with this digest."""

    def guarding(self) -> AbstractContextManager[Callable[[str], None]]:
        """Yield a function that guards the bytes of a digest from `remove_unused`, in any program.

        The guard ends with the block. Store bytes and publish them in one block, by one write from the thread
        that entered it. If the guard is lost meanwhile, that write raises RegistryUnavailable.
        """

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        """Call `remove` with a digest that no version has, while nobody guards it; return whether it did."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in a thread of the registry, after changes by other programs, if it can tell them."""

    def ping(self) -> None:
        """Return if the registry answers; else raise RegistryUnavailable."""

    def close(self) -> None:
        """Close the registry; every later call raises RegistryUnavailable."""


class RolloutRegistry(Protocol):
    """The part of a registry that the watcher of rollback rules needs, for the adapters of all tenants."""

    def rollouts(self, since: int = -1) -> tuple[int, builtins.list[Rollout]] | None:
        """Return the registry's revision, and every adapter with a shadow or a rollback rule.

        Return None if the revision is still `since`.
        """

    def carry_out(self, verdict: RuleVerdict) -> bool:
        """End a split or a shadow, or move `live` back, as a verdict asks; return whether that changed anything.

        Nothing changes if the adapter is no longer as it was judged.
        """


class ReferenceIndex(Protocol):
    """The part of a registry that tells which references mean an adapter in memory, for one or all tenants."""

    @property
    def revision(self) -> int:
        """Return a number that changes with the registry, as far as this program knows; it reads it seldom."""

    def references_of(
        self, digests: Collection[str], most: int, tenant: str | None = None
    ) -> builtins.list[tuple[str, str]]:
        """Return digests with references that mean them, at most `most`, by stored name.

        With `tenant`, only that tenant's references are returned and count.
        A version has its adapter's name if it is live, `name@alias` for each other alias, and `name@version` if
        it has no alias.
        """


class VersionIndex(Protocol):
    """The part of a registry that a check of the store needs: every version, and the removal of unused bytes."""

    def index(self) -> Iterator[IndexedVersion]:
        """Yield every version of every adapter in order of name and number, then the deleted ones likewise."""

    def mark(self, digest: str, status: str) -> int:
        """Set the status of all versions with this digest, and return how many had another one."""

    def digest_in_use(self, digest: str) -> bool:
        """Return whether any version of any adapter has this digest, deleted ones included."""

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        """Call `remove` with a digest that no version has, as a Registry does; return whether it did."""

    def events(
        self, name: str | None = None, limit: int = 100, before: int | None = None
    ) -> builtins.list[Event]:
        """Return at most `limit` events, newest first, as a Registry does."""

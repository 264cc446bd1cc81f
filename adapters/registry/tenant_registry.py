"""The registry as one tenant sees it."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rootstock.adapters.reference import Reference
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AliasPointer,
    AliasSplit,
    DeletedVersion,
    Event,
    NewVersion,
    Page,
    Published,
    Resolution,
    Sharing,
    Undeleted,
    VersionDetail,
    Viewer,
)
from rootstock.adapters.registry.rollout_records import NamedRule, NamedShadow, RollbackRule
from rootstock.adapters.registry.sql.registry import SqlRegistry


class TenantRegistry:
    """The adapters of one tenant, and those that other tenants share with all, as a registry.

    A name alone means the tenant's own adapter, else one that the default tenant shares. `owner/name` means one
    that the tenant `owner` shares. Every other name is unknown, whether or not another tenant has it: no answer,
    message, list, number or count tells. Only the tenant's own adapters can be changed.

    `who` is the principal that the changes are recorded under, by default the tenant.
    """

    def __init__(self, registry: SqlRegistry, tenant: str, who: str | None = None) -> None:
        self._registry = registry
        self._viewer = Viewer(tenant, who or tenant)

    @property
    def tenant(self) -> str:
        """Return the tenant."""
        return self._viewer.tenant

    def resolve(self, reference: str | Reference) -> Resolution:
        """Return the one version that `reference` means now; a name alone means its alias `live`."""
        return self._registry.resolve(reference, self._viewer)

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
        return self._registry.publish(
            name,
            digest,
            task=task,
            verification=verification,
            size=size,
            activate=activate,
            foundation=foundation,
            viewer=self._viewer,
        )

    def publish_all(self, versions: Sequence[NewVersion]) -> builtins.list[Published]:
        """Publish the versions and point `live` at each, in one transaction."""
        return self._registry.publish_all(versions, self._viewer)

    def set_alias(self, name: str, alias: str, version: int) -> AliasPointer:
        """Point `alias` of `name` at `version`."""
        return self._registry.set_alias(name, alias, version, self._viewer)

    def request_activation(self, name: str, version: int) -> None:
        """Record the request that `live` should point at `version`."""
        self._registry.request_activation(name, version, self._viewer)

    def rollback(self, name: str) -> AliasPointer:
        """Point `live` at its previous version that still exists; raise NoPreviousVersion if there is none."""
        return self._registry.rollback(name, self._viewer)

    def set_shadow(self, name: str, version: int, percent: float) -> NamedShadow:
        """Let a version compute a share of live's requests without answering them."""
        return self._registry.set_shadow(name, version, percent, self._viewer)

    def end_shadow(self, name: str) -> NamedShadow:
        """End the shadow of an adapter and return it; raise NoShadow if it has none."""
        return self._registry.end_shadow(name, self._viewer)

    def set_rule(self, name: str, rule: RollbackRule) -> NamedRule:
        """Set the rollback rule of an adapter; raise InvalidRule for a value outside its bounds."""
        return self._registry.set_rule(name, rule, self._viewer)

    def rule(self, name: str) -> NamedRule:
        """Return the rollback rule of an adapter; raise NoRule if it has none."""
        return self._registry.rule(name, self._viewer)

    def remove_rule(self, name: str) -> NamedRule:
        """Remove the rollback rule of an adapter and return it; raise NoRule if it has none."""
        return self._registry.remove_rule(name, self._viewer)

    def set_split(self, name: str, alias: str, candidates: Mapping[int, float]) -> AliasSplit:
        """Let versions answer these percents of an alias's requests, in place of the split that it has.

        A move of the alias ends the split. Raise InvalidSplit for shares that versions cannot have.
        """
        return self._registry.set_split(name, alias, candidates, self._viewer)

    def end_split(self, name: str, alias: str, detail: Mapping[str, Any] | None = None) -> AliasPointer:
        """Let an alias mean one version again; raise NoSplit if it has no split. The event has `detail` too."""
        return self._registry.end_split(name, alias, detail, self._viewer)

    def share(self, name: str, shared: bool) -> Sharing:
        """Let all tenants use an adapter, or its tenant alone."""
        return self._registry.share(name, shared, self._viewer)

    def delete_version(self, name: str, version: int, *, force: bool = False, restorable: bool = False) -> str:
        """Delete a version and return its digest, as a Registry does."""
        return self._registry.delete_version(
            name, version, force=force, restorable=restorable, viewer=self._viewer
        )

    def delete_adapter(self, name: str, *, restorable: bool = False) -> builtins.list[str]:
        """Delete an adapter with its versions and aliases; return the digests in order of version number."""
        return self._registry.delete_adapter(name, restorable=restorable, viewer=self._viewer)

    def deleted(self, name: str) -> builtins.list[DeletedVersion]:
        """Return the versions of an adapter of the tenant that can come back, in order of number."""
        return self._registry.deleted(name, self._viewer)

    def undelete(self, name: str, version: int | None = None) -> Undeleted:
        """Bring a deleted version back with its aliases that are free; None: all that the adapter had."""
        return self._registry.undelete(name, version, self._viewer)

    def surplus(self, name: str, newest: int) -> builtins.list[str]:
        """Return the digests of the versions that `retire` would delete now."""
        return self._registry.surplus(name, newest, self._viewer)

    def retire(self, name: str, newest: int, *, restorable: bool = False) -> builtins.list[str]:
        """Delete all versions but the newest ones and those in use; return the digests."""
        return self._registry.retire(name, newest, restorable=restorable, viewer=self._viewer)

    def list(self, limit: int = 100, after: str | None = None, search: str = "") -> Page:
        """Return at most `limit` adapters in order of name: names after `after` that contain `search`."""
        return self._registry.list(limit, after, search, self._viewer)

    def show(self, name: str) -> AdapterDetail:
        """Return everything about one adapter; raise UnknownAdapter if there is none."""
        return self._registry.show(name, self._viewer)

    def version(self, name: str, number: int) -> VersionDetail:
        """Return everything about one version; raise UnknownAdapter or UnknownVersion if there is none."""
        return self._registry.version(name, number, self._viewer)

    def events(
        self, name: str | None = None, limit: int = 100, before: int | None = None
    ) -> builtins.list[Event]:
        """Return at most `limit` events of the tenant's adapters, newest first; their ids count these alone."""
        return self._registry.events(name, limit, before, self._viewer)

    def count(self) -> int:
        """Return the number of adapters that the tenant can use."""
        return self._registry.count(self._viewer)

    def digest_in_use(self, digest: str) -> bool:
        """Return whether any version of any tenant's adapter has this digest. No route may show it."""
        return self._registry.digest_in_use(digest)

    def is_published(self, digest: str) -> bool:
        """Return whether requests can mean a version with this digest, of any tenant. No route may show it."""
        return self._registry.is_published(digest)

    def guarding(self) -> AbstractContextManager[Callable[[str], None]]:
        """Yield a function that guards the bytes of a digest from `remove_unused`, whoever publishes them.

        Bytes have no tenant: several tenants may publish the same ones.
        """
        return self._registry.guarding()

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        """Call `remove` with a digest that no version of any tenant has, unless it is guarded."""
        return self._registry.remove_unused(digest, remove)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` after changes by other programs, to the adapters of any tenant."""
        self._registry.subscribe(changed)

    def ping(self) -> None:
        """Return if the registry answers; else raise RegistryUnavailable."""
        self._registry.ping()

    def close(self) -> None:
        """Close the registry; every later call raises RegistryUnavailable."""
        self._registry.close()

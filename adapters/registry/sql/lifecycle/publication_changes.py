"""Publication, aliases and sharing as a registry offers them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rootstock.adapters.reference import (
    DEFAULT_TENANT,
    LIVE,
    check_alias,
    check_digest,
    check_name,
    check_tenant,
    split_stored,
    stored_name,
)
from rootstock.adapters.registry.records import (
    READY,
    AliasPointer,
    NewVersion,
    Published,
    Sharing,
    Viewer,
)
from rootstock.adapters.registry.sql.bulk import publish_all
from rootstock.adapters.registry.sql.live import live_version, move_live, point, step_back
from rootstock.adapters.registry.sql.lookup import find_version
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, VersionRow
from rootstock.adapters.registry.sql.transactions import RegistryTransactions
from rootstock.adapters.registry.sql.visibility import named

# The key of a version's record under which the signature of its upload is.
_SIGNATURE = "signature"


class PublicationChanges(RegistryTransactions):
    """The part of a registry that publishes versions, and moves aliases between them."""

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
        viewer: Viewer | None = None,
    ) -> Published:
        """Give `digest` the next version number under `name`, or find the number that it has already.

        With `activate`, point `live` at that version. A number that it has already keeps its record, apart from a
        new signature.
        """
        stored = _new_name(name, viewer)
        check_digest(digest)
        with self._writing(stored, viewer) as (session, history):
            adapter = _adapter(session, stored)
            row = session.scalars(
                select(VersionRow).where(VersionRow.adapter == stored, VersionRow.digest == digest)
            ).one_or_none()
            created = row is None
            if row is not None and row.status != READY:
                # The caller has just stored the bytes again.
                history.note(f"marked_{READY}", stored, version=row.number, before=row.status, after=READY)
                row.status = READY
            if row is None:
                row = _version(adapter, digest, task, verification, size, foundation, history.who)
                session.add(row)
                session.flush()
                history.note("published", stored, version=row.number, digest=digest)
            elif _signs_anew(row.verification, verification):
                former, new = _signer(row.verification), _signer(verification)
                row.verification = {**row.verification, _SIGNATURE: verification[_SIGNATURE]}
                history.note("signed", stored, version=row.number, signer=new, before=former, after=new)
            before = live_version(session, stored)
            if activate and before != row.number:
                move_live(session, history, stored, row.number)
                history.note("alias_set", stored, version=row.number, alias=LIVE, before=before)
            live = row.number if activate else before
            return Published(named(stored, viewer), row.number, digest, created, live)

    def publish_all(self, versions: Sequence[NewVersion], viewer: Viewer | None = None) -> list[Published]:
        """Publish the versions and point `live` at each, in one transaction.

        A version whose digest the name holds already changes nothing.
        """
        stored = [replace(version, name=_new_name(version.name, viewer)) for version in versions]
        for version in versions:
            check_digest(version.digest)
        with self._writing(None, viewer) as (session, history):
            done = publish_all(session, stored, _now(), history)
        return [replace(one, name=named(one.name, viewer)) for one in done]

    def set_alias(self, name: str, alias: str, version: int, viewer: Viewer | None = None) -> AliasPointer:
        """Point `alias` of `name` at `version`; a move of `live` goes into the history that `rollback` uses."""
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            target = find_version(session, adapter, version, viewer)
            row = session.get(AliasRow, (adapter.name, alias))
            before = None if row is None else row.version
            if before != version:
                if alias == LIVE:
                    move_live(session, history, adapter.name, version)
                else:
                    point(session, history, adapter.name, alias, version)
                history.note("alias_set", adapter.name, version=version, alias=alias, before=before)
            return AliasPointer(named(adapter.name, viewer), alias, version, target.digest)

    def request_activation(self, name: str, version: int, viewer: Viewer | None = None) -> None:
        """Record the request that `live` should point at `version`, unless that is the version's last event."""
        with self._changing(name, viewer) as (session, history, adapter):
            find_version(session, adapter, version, viewer)
            before = live_version(session, adapter.name)
            history.note_once("activation_requested", adapter.name, version, LIVE, before=before)

    def rollback(self, name: str, viewer: Viewer | None = None) -> AliasPointer:
        """Point `live` at its previous version that still exists; raise NoPreviousVersion if there is none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            before = live_version(session, adapter.name)
            version = step_back(session, history, adapter.name, called)
            history.note("rolled_back", adapter.name, version=version, alias=LIVE, before=before)
            return AliasPointer(called, LIVE, version, find_version(session, adapter, version).digest)

    def share(self, name: str, shared: bool, viewer: Viewer | None = None) -> Sharing:
        """Let all tenants use an adapter, or its tenant alone."""
        with self._changing(name, viewer) as (_, history, adapter):
            if adapter.shared != shared:
                adapter.shared = shared
                what = "shared" if shared else "unshared"
                history.note(what, adapter.name, before=not shared, after=shared)
            return Sharing(named(adapter.name, viewer), shared)


def _signer(verification: dict[str, Any]) -> str | None:
    signer: str | None = verification.get(_SIGNATURE, {}).get("signer")
    return signer


def _signs_anew(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return _SIGNATURE in now and before.get(_SIGNATURE) != now[_SIGNATURE]


def _adapter(session: Session, name: str) -> AdapterRow:
    row = session.get(AdapterRow, name)
    if row is None:
        row = AdapterRow(name=name, next_version=1, created_at=_now(), tenant=split_stored(name)[0], shared=False)
        session.add(row)
        session.flush()
    elif row.deleted_at is not None:
        row.deleted_at, row.created_at = None, _now()
    return row


def _version(
    adapter: AdapterRow,
    digest: str,
    task: str,
    verification: dict[str, Any],
    size: int,
    foundation: str | None,
    who: str | None,
) -> VersionRow:
    number = adapter.next_version
    adapter.next_version = number + 1
    return VersionRow(
        adapter=adapter.name,
        number=number,
        digest=digest,
        task=task,
        status=READY,
        size=size,
        verification=verification,
        created_at=_now(),
        foundation=foundation,
        published_by=who,
    )


def _new_name(path: str, viewer: Viewer | None) -> str:
    """Return the stored name of an adapter to publish. Raise InvalidName if it cannot be one."""
    if viewer is not None:
        return stored_name(viewer.tenant, check_name(path))
    tenant, name = split_stored(path) if isinstance(path, str) else (DEFAULT_TENANT, path)
    return stored_name(check_tenant(tenant), check_name(name))


def _now() -> datetime:
    return datetime.now(UTC)

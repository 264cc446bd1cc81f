"""Deletion, undeletion and retention as a registry offers them."""

from datetime import datetime

from rootstock.adapters.registry.records import DeletedVersion, Undeleted, Viewer
from rootstock.adapters.registry.sql.lifecycle.deletion import (
    delete_adapter,
    delete_version,
    deleted_version,
    expired,
    find_deleted,
    purge,
    undelete,
)
from rootstock.adapters.registry.sql.lifecycle.retention import retire, surplus
from rootstock.adapters.registry.sql.transactions import RegistryTransactions
from rootstock.adapters.registry.sql.visibility import find_own, named


class DeletionChanges(RegistryTransactions):
    """The part of a registry that deletes versions, and brings them back."""

    def delete_version(
        self,
        name: str,
        version: int,
        *,
        force: bool = False,
        restorable: bool = False,
        viewer: Viewer | None = None,
    ) -> str:
        """Delete a version and return its digest; with `restorable`, it can come back until it is purged.

        Raise VersionInUse if an alias, a split or a shadow uses it, unless `force`, which removes these too.
        Without `restorable`, a version that is deleted already is purged.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return delete_version(
                session, history, name, version, force=force, restorable=restorable, viewer=viewer
            )

    def delete_adapter(self, name: str, *, restorable: bool = False, viewer: Viewer | None = None) -> list[str]:
        """Delete an adapter with its versions and aliases; return the digests in order of version number.

        With `restorable`, the versions can come back until they are purged. Without it, those that are deleted
        already are purged too.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return delete_adapter(session, history, name, restorable=restorable, viewer=viewer)

    def deleted(self, name: str, viewer: Viewer | None = None) -> list[DeletedVersion]:
        """Return the versions of an adapter that can come back, in order of number; it may be deleted itself."""
        with self._database.reading() as session:
            stored, rows = find_deleted(session, name, viewer)
            return [deleted_version(row, named(stored, viewer)) for row in rows]

    def undelete(self, name: str, version: int | None = None, viewer: Viewer | None = None) -> Undeleted:
        """Bring a deleted version back with its aliases that are free; None: all that the adapter had.

        Raise UnknownVersion if there is none, and AlreadyPublished if a later version has its content.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return undelete(session, history, name, version, viewer)

    def expired(self, before: datetime, limit: int = 100) -> list[DeletedVersion]:
        """Return the first `limit` versions of all tenants that were deleted at or before a time.

        Their names are the stored ones.
        """
        with self._database.reading() as session:
            return expired(session, before, limit)

    def purge(self, stored: str, version: int, before: datetime, viewer: Viewer | None = None) -> str | None:
        """Forget a version that was deleted at or before a time, and return its digest; None if it was not."""
        with self._writing(stored, viewer) as (session, history):
            return purge(session, history, stored, version, before)

    def surplus(self, name: str, newest: int, viewer: Viewer | None = None) -> list[str]:
        """Return the digests of the versions that `retire` would delete now."""
        with self._database.reading() as session:
            return [row.digest for row in surplus(session, find_own(session, name, viewer).name, newest)]

    def retire(
        self, name: str, newest: int, *, restorable: bool = False, viewer: Viewer | None = None
    ) -> list[str]:
        """Delete all versions but the newest ones and those in use, as `delete_version` does; return the digests.

        In use are versions of aliases, splits and shadows, and the one that a rollback makes live.
        """
        with self._changing(name, viewer) as (session, history, adapter):
            return retire(session, history, adapter.name, newest, restorable)

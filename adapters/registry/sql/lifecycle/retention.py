"""Finds the versions that nothing needs besides the newest ones, and deletes them."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.lifecycle.deletion import remove_version
from rootstock.adapters.registry.sql.live import previous_live
from rootstock.adapters.registry.sql.tables import AliasRow, ShadowRow, SplitRow, VersionRow


def surplus(session: Session, stored: str, newest: int) -> list[VersionRow]:
    """Return an adapter's versions besides the newest ones and those in use, in order of number.

    In use are the versions of aliases, splits and the shadow, and the one that a rollback makes live.
    """
    rows = session.scalars(
        select(VersionRow).where(VersionRow.adapter == stored).order_by(VersionRow.number.desc()).offset(newest)
    ).all()
    if not rows:
        return []
    needed = {previous_live(session, stored)}
    for table in (AliasRow, SplitRow, ShadowRow):
        needed.update(session.scalars(select(table.version).where(table.adapter == stored)))
    return [row for row in reversed(rows) if row.number not in needed]


def retire(session: Session, history: History, stored: str, newest: int, restorable: bool) -> list[str]:
    """Delete an adapter's surplus versions, and return their digests in order of version number."""
    rows = surplus(session, stored, newest)
    for row in rows:
        remove_version(session, history, row, (), restorable)
    return [row.digest for row in rows]

"""Finds the references that mean given digests now."""

from collections.abc import Collection

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.sql.tables import AliasRow, VersionRow


def references_of(session: Session, digests: Collection[str], most: int) -> list[tuple[str, str]]:
    """Return digests with references that mean them, at most `most`, in order of stored name.

    A version that `live` points at has its adapter's stored name, and for each other alias `name@alias`. A
    version without an alias has `name@version`.
    """
    pointed = and_(AliasRow.adapter == VersionRow.adapter, AliasRow.version == VersionRow.number)
    rows = session.execute(
        select(VersionRow.digest, VersionRow.adapter, VersionRow.number, AliasRow.alias)
        .outerjoin(AliasRow, pointed)
        .where(VersionRow.digest.in_(digests))
        .order_by(VersionRow.adapter, VersionRow.number, AliasRow.alias)
        .limit(most)
    )
    return [
        (digest, name if alias == LIVE else f"{name}@{number if alias is None else alias}")
        for digest, name, number, alias in rows
    ]

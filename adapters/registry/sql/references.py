"""Finds the references that mean given digests now."""

from collections.abc import Collection

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, VersionRow


def references_of(
    session: Session, digests: Collection[str], most: int, tenant: str | None = None
) -> list[tuple[str, str]]:
    """Return digests with references that mean them, at most `most`, in order of stored name.

    With `tenant`, only that tenant's references are returned and count.

    A version that `live` points at has its adapter's stored name, and for each other alias `name@alias`. A
    version without an alias has `name@version`.
    """
    pointed = and_(AliasRow.adapter == VersionRow.adapter, AliasRow.version == VersionRow.number)
    owned = [] if tenant is None else [AdapterRow.tenant == tenant]
    rows = session.execute(
        select(VersionRow.digest, VersionRow.adapter, VersionRow.number, AliasRow.alias)
        .join(AdapterRow, AdapterRow.name == VersionRow.adapter)
        .outerjoin(AliasRow, pointed)
        .where(VersionRow.digest.in_(digests), *owned)
        .order_by(VersionRow.adapter, VersionRow.number, AliasRow.alias)
        .limit(most)
    )
    return [
        (digest, name if alias == LIVE else f"{name}@{number if alias is None else alias}")
        for digest, name, number, alias in rows
    ]

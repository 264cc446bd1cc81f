"""The use of quotas by all servers on one registry, by the minute."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from rootstock.adapters.registry.quota_port import Use
from rootstock.adapters.registry.sql.database import Database
from rootstock.adapters.registry.sql.tables import QuotaUseRow

# Minutes whose use still counts: a window of 60 seconds lies in two.
_COUNTED = 2
_KEY = ("holder", "unit", "minute")


class SqlQuotaUses:
    """The QuotaUses of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, spent: Mapping[Use, int], minute: int) -> dict[tuple[Use, int], int]:
        """Add to the use in a minute, and return the use of all in this minute and the one before."""
        with self._database.noting() as session:
            dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
            # Each server locks the rows in one order, so that two never wait for each other.
            for use in sorted(spent):
                row = dialect.insert(QuotaUseRow).values(
                    holder=use.holder, unit=use.unit, minute=minute, amount=spent[use]
                )
                more = {"amount": QuotaUseRow.amount + row.excluded.amount}
                session.execute(row.on_conflict_do_update(index_elements=_KEY, set_=more))
            oldest = minute - _COUNTED + 1
            if spent:
                session.execute(delete(QuotaUseRow).where(QuotaUseRow.minute < oldest - _COUNTED))
            rows = session.scalars(select(QuotaUseRow).where(QuotaUseRow.minute >= oldest)).all()
            return {(Use(row.holder, row.unit), row.minute): row.amount for row in rows}

"""Reads adapters, versions and events as lists and details."""

from collections import defaultdict
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AdapterSummary,
    Event,
    IndexedVersion,
    Page,
    VersionDetail,
)
from rootstock.adapters.registry.sql.lookup import find_adapter
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, EventRow, VersionRow

_PAGE = 1000


class _Made(NamedTuple):
    """The parts of a version that describe its adapter in a list."""

    task: str
    foundation: str | None
    at: datetime


def page(session: Session, limit: int, after: str | None, search: str = "") -> Page:
    """Return at most `limit` adapters in order of name: names after `after` that contain `search`."""
    query = select(AdapterRow.name).where(AdapterRow.deleted_at.is_(None)).order_by(AdapterRow.name)
    if after is not None:
        query = query.where(AdapterRow.name > after)
    if search:
        query = query.where(AdapterRow.name.contains(search, autoescape=True))
    names = list(session.scalars(query.limit(limit + 1)))
    more, names = len(names) > limit, names[:limit]
    made: defaultdict[str, dict[int, _Made]] = defaultdict(dict)
    columns = VersionRow.adapter, VersionRow.number, VersionRow.task, VersionRow.foundation, VersionRow.created_at
    versions = select(*columns).where(VersionRow.adapter.in_(names)).order_by(VersionRow.number)
    for name, number, task, foundation, at in session.execute(versions):
        made[name][number] = _Made(task, foundation, at)
    aliases: defaultdict[str, dict[str, int]] = defaultdict(dict)
    pointers = select(AliasRow.adapter, AliasRow.alias, AliasRow.version).order_by(AliasRow.alias)
    for name, alias, version in session.execute(pointers.where(AliasRow.adapter.in_(names))):
        aliases[name][alias] = version
    summaries = [_summary(name, made[name], aliases[name]) for name in names]
    return Page(summaries, names[-1] if more else None)


def adapter_detail(session: Session, name: str) -> AdapterDetail:
    """Return everything about one adapter; raise UnknownAdapter if there is none."""
    row = find_adapter(session, name)
    rows = session.scalars(select(VersionRow).where(VersionRow.adapter == name).order_by(VersionRow.number))
    versions = [version_detail(version) for version in rows]
    pointers = session.scalars(select(AliasRow).where(AliasRow.adapter == name).order_by(AliasRow.alias))
    aliases = {pointer.alias: pointer.version for pointer in pointers}
    made = {one.version: _Made(one.task, one.foundation, one.created_at) for one in versions}
    summary = _summary(name, made, aliases)
    return AdapterDetail(name, summary.live, summary.task, aliases, row.created_at, versions)


def version_detail(row: VersionRow) -> VersionDetail:
    """Return a version's row as a VersionDetail."""
    return VersionDetail(
        name=row.adapter,
        version=row.number,
        digest=row.digest,
        task=row.task,
        status=row.status,
        created_at=row.created_at,
        size=row.size,
        verification=row.verification,
        foundation=row.foundation,
    )


def newest_events(session: Session, name: str | None, limit: int, before: int | None) -> list[Event]:
    """Return at most `limit` events, newest first, of one adapter or of all; `before` is an id to stay under."""
    query = select(EventRow).order_by(EventRow.id.desc()).limit(limit)
    if name is not None:
        query = query.where(EventRow.name == name)
    if before is not None:
        query = query.where(EventRow.id < before)
    return [
        Event(row.id, row.at, row.what, row.name, row.version, row.alias, row.detail)
        for row in session.scalars(query)
    ]


def _summary(name: str, made: dict[int, _Made], aliases: dict[str, int]) -> AdapterSummary:
    live = aliases.get(LIVE)
    described = live if live is not None else max(made, default=None)
    task, foundation, at = (None, None, None) if described is None else made[described]
    return AdapterSummary(name, live, list(made), task, aliases, foundation, at)


def indexed_versions(session: Session, after: tuple[str, int]) -> list[IndexedVersion]:
    """Return the next versions of all adapters after this name and number, in their order."""
    name, number = after
    later = or_(VersionRow.adapter > name, and_(VersionRow.adapter == name, VersionRow.number > number))
    columns = select(VersionRow.adapter, VersionRow.number, VersionRow.digest, VersionRow.status)
    rows = session.execute(columns.where(later).order_by(VersionRow.adapter, VersionRow.number).limit(_PAGE))
    return [IndexedVersion(*row) for row in rows]

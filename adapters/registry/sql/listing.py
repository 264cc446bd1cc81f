"""Reads adapters, versions and events as lists and details."""

import heapq
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, true
from sqlalchemy.orm import Session

from rootstock.adapters.reference import DEFAULT_TENANT, LIVE, split_path, split_stored, stored_name
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AdapterSummary,
    Event,
    IndexedVersion,
    Page,
    VersionDetail,
    Viewer,
)
from rootstock.adapters.registry.sql.rollout.rollback_rules import rule_of
from rootstock.adapters.registry.sql.rollout.shadows import shadow_of
from rootstock.adapters.registry.sql.rollout.splits import read_splits
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, DeletedVersionRow, EventRow, VersionRow
from rootstock.adapters.registry.sql.visibility import find_adapter, named, visible

_PAGE = 1000


class _Called(NamedTuple):
    """An adapter in a page: the viewer's name of it, the stored one, and whether it is shared."""

    name: str
    stored: str
    shared: bool


class _Group(NamedTuple):
    """Adapters whose stored names begin with `stored`, where the viewer's names of them begin with `called`."""

    members: ColumnElement[bool]
    stored: str = ""
    called: str = ""


class _Made(NamedTuple):
    """The parts of a version that describe its adapter in a list."""

    task: str
    foundation: str | None
    at: datetime


def page(session: Session, limit: int, after: str | None, search: str = "", viewer: Viewer | None = None) -> Page:
    """Return at most `limit` adapters in order of name: names after `after` that contain `search`."""
    names = heapq.nsmallest(limit + 1, _called(session, limit + 1, after, search, viewer))
    more, names = len(names) > limit, names[:limit]
    stored = [one.stored for one in names]
    made: defaultdict[str, dict[int, _Made]] = defaultdict(dict)
    columns = VersionRow.adapter, VersionRow.number, VersionRow.task, VersionRow.foundation, VersionRow.created_at
    versions = select(*columns).where(VersionRow.adapter.in_(stored)).order_by(VersionRow.number)
    for name, number, task, foundation, at in session.execute(versions):
        made[name][number] = _Made(task, foundation, at)
    aliases: defaultdict[str, dict[str, int]] = defaultdict(dict)
    pointers = select(AliasRow.adapter, AliasRow.alias, AliasRow.version).order_by(AliasRow.alias)
    for name, alias, version in session.execute(pointers.where(AliasRow.adapter.in_(stored))):
        aliases[name][alias] = version
    summaries = [_summary(one.name, made[one.stored], aliases[one.stored], one.shared) for one in names]
    return Page(summaries, names[-1].name if more else None)


def _called(
    session: Session, most: int, after: str | None, search: str, viewer: Viewer | None
) -> Iterator[_Called]:
    """Yield adapters that a viewer can use, among them the first `most` in order of name."""
    for group in _groups(viewer):
        query = select(AdapterRow.name, AdapterRow.shared).where(visible(viewer), group.members)
        if after is not None and after.startswith(group.called):
            query = query.where(AdapterRow.name > group.stored + after.removeprefix(group.called))
        elif after is not None and after > group.called:
            continue
        if search:
            name = literal(group.called) + func.substr(AdapterRow.name, len(group.stored) + 1)
            query = query.where(name.contains(search, autoescape=True))
        for stored, shared in session.execute(query.order_by(AdapterRow.name).limit(most)):
            yield _Called(group.called + stored.removeprefix(group.stored), stored, shared)


def _groups(viewer: Viewer | None) -> list[_Group]:
    if viewer is None:
        return [_Group(true())]
    own = _Group(AdapterRow.tenant == viewer.tenant, stored_name(viewer.tenant, ""))
    others = _Group(AdapterRow.tenant.not_in({viewer.tenant, DEFAULT_TENANT}))
    if viewer.tenant == DEFAULT_TENANT:
        return [own, others]
    return [own, _Group(AdapterRow.tenant == DEFAULT_TENANT, called=f"{DEFAULT_TENANT}/"), others]


def count(session: Session, viewer: Viewer | None = None) -> int:
    """Return the number of adapters that a viewer can use."""
    return session.scalar(select(func.count()).select_from(AdapterRow).where(visible(viewer))) or 0


def adapter_detail(session: Session, path: str, viewer: Viewer | None = None) -> AdapterDetail:
    """Return everything about one adapter; raise UnknownAdapter if there is none."""
    row = find_adapter(session, path, viewer)
    name = named(row.name, viewer)
    rows = session.scalars(select(VersionRow).where(VersionRow.adapter == row.name).order_by(VersionRow.number))
    versions = [version_detail(version, name, viewer) for version in rows]
    pointers = session.scalars(select(AliasRow).where(AliasRow.adapter == row.name).order_by(AliasRow.alias))
    aliases = {pointer.alias: pointer.version for pointer in pointers}
    made = {one.version: _Made(one.task, one.foundation, one.created_at) for one in versions}
    summary = _summary(name, made, aliases, row.shared)
    return AdapterDetail(
        name,
        summary.live,
        summary.task,
        aliases,
        row.created_at,
        versions,
        row.shared,
        splits=read_splits(session, row.name),
        shadow=shadow_of(session, row.name),
        rule=rule_of(session, row.name),
    )


def version_detail(row: VersionRow, name: str, viewer: Viewer | None = None) -> VersionDetail:
    """Return a version's row as a VersionDetail of the adapter `name`, without another tenant's principal."""
    own = viewer is None or viewer.tenant == split_stored(row.adapter)[0]
    return VersionDetail(
        name=name,
        version=row.number,
        digest=row.digest,
        task=row.task,
        status=row.status,
        created_at=row.created_at,
        size=row.size,
        verification=row.verification,
        foundation=row.foundation,
        published_by=row.published_by if own else None,
    )


def newest_events(
    session: Session, path: str | None, limit: int, before: int | None, viewer: Viewer | None = None
) -> list[Event]:
    """Return at most `limit` events, newest first, of one adapter or of all of the viewer's own.

    `before` is an id to stay under. Ids count the events of the viewer's tenant.
    """
    number = EventRow.id if viewer is None else func.coalesce(EventRow.number, EventRow.id)
    query = select(EventRow, number).order_by(EventRow.id.desc()).limit(limit)
    if viewer is not None:
        query = query.where(EventRow.tenant == viewer.tenant)
    if path is not None:
        parts = split_path(path)
        if parts is None:
            return []
        tenant = DEFAULT_TENANT if viewer is None else viewer.tenant
        query = query.where(EventRow.name == stored_name(parts[0] or tenant, parts[1]))
    if before is not None:
        query = query.where(number < before)
    return [
        Event(numbered, row.at, row.what, named(row.name, viewer), row.version, row.alias, row.detail, row.who)
        for row, numbered in session.execute(query)
    ]


def _summary(name: str, made: dict[int, _Made], aliases: dict[str, int], shared: bool) -> AdapterSummary:
    live = aliases.get(LIVE)
    described = live if live is not None else max(made, default=None)
    task, foundation, at = (None, None, None) if described is None else made[described]
    return AdapterSummary(name, live, list(made), task, aliases, foundation, at, shared)


def indexed_versions(session: Session, after: tuple[str, int], deleted: bool) -> list[IndexedVersion]:
    """Return the next versions of all adapters after this name and number, in order; `deleted`: deleted ones."""
    name, number = after
    table = DeletedVersionRow if deleted else VersionRow
    later = or_(table.adapter > name, and_(table.adapter == name, table.number > number))
    columns = select(table.adapter, table.number, table.digest, table.status)
    rows = session.execute(columns.where(later).order_by(table.adapter, table.number).limit(_PAGE))
    return [IndexedVersion(*row, deleted) for row in rows]

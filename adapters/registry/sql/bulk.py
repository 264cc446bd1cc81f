"""Publishes many versions in one transaction, with a few statements for all of them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from rootstock.adapters.reference import LIVE, split_stored
from rootstock.adapters.registry.records import READY, NewVersion, Published
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.rollout.splits import end_splits_of_live
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, EventRow, LiveRow, VersionRow


def publish_all(
    session: Session, versions: Sequence[NewVersion], now: datetime, history: History
) -> list[Published]:
    """Give each version the next number under its stored name, and point `live` at it.

    A version whose digest the name holds already changes nothing.
    """
    names = {version.name for version in versions}
    known = {row.name: row for row in session.scalars(select(AdapterRow).where(AdapterRow.name.in_(names)))}
    numbers = _numbers(session, names)
    live = _live(session, names)
    following = {name: row.next_version for name, row in known.items()}
    done: list[Published] = []
    rows: list[dict[str, Any]] = []
    moves: list[tuple[str, int, str, int | None]] = []
    for version in versions:
        name = version.name
        number = numbers.get((name, version.digest))
        created = number is None
        if number is None:
            number = following.get(name, 1)
            following[name] = number + 1
            numbers[name, version.digest] = number
            rows.append(_version(version, number, now, history.who))
            moves.append((name, number, version.digest, live.get(name)))
            live[name] = number
        done.append(Published(name, number, version.digest, created, live.get(name)))
    # The caller has just stored these bytes again.
    damaged = VersionRow.digest.in_({version.digest for version in versions}), VersionRow.status != READY
    mended = select(VersionRow.adapter, VersionRow.number, VersionRow.status).where(*damaged)
    for name, number, status in session.execute(mended):
        history.note(f"marked_{READY}", name, version=number, before=status, after=READY)
    session.execute(update(VersionRow).where(*damaged).values(status=READY))
    if rows:
        _write_adapters(session, known, {row["adapter"]: following[row["adapter"]] for row in rows}, now)
        session.execute(insert(VersionRow), rows)
        # Before `live` moves, because the events of the splits that end state the version that it points at.
        end_splits_of_live(session, history, {row["adapter"] for row in rows})
        _move_live(session, [(row["adapter"], row["number"]) for row in rows])
        # Numbered last, as they are written: a tenant's events have rising numbers in the order of their rows.
        events: list[dict[str, Any]] = []
        for name, number, digest, before in moves:
            events.append(history.row("published", name, number, None, {"digest": digest}))
            events.append(history.row("alias_set", name, number, LIVE, {"before": before}))
        session.execute(insert(EventRow), events)
    return done


def _numbers(session: Session, names: Iterable[str]) -> dict[tuple[str, str], int]:
    columns = select(VersionRow.adapter, VersionRow.digest, VersionRow.number)
    rows = session.execute(columns.where(VersionRow.adapter.in_(names)))
    return {(row.adapter, row.digest): row.number for row in rows}


def _live(session: Session, names: Iterable[str]) -> dict[str, int]:
    columns = select(AliasRow.adapter, AliasRow.version)
    rows = session.execute(columns.where(AliasRow.adapter.in_(names), AliasRow.alias == LIVE))
    return {row.adapter: row.version for row in rows}


def _version(version: NewVersion, number: int, now: datetime, who: str | None) -> dict[str, Any]:
    return {
        "adapter": version.name,
        "number": number,
        "digest": version.digest,
        "task": version.task,
        "status": READY,
        "size": version.size,
        "verification": version.verification,
        "created_at": now,
        "foundation": version.foundation,
        "published_by": who,
    }


def _write_adapters(
    session: Session, known: Mapping[str, AdapterRow], following: Mapping[str, int], now: datetime
) -> None:
    new: list[dict[str, Any]] = []
    old: list[dict[str, Any]] = []
    for name, number in following.items():
        row = known.get(name)
        began = now if row is None or row.deleted_at is not None else row.created_at
        values = {"name": name, "next_version": number, "created_at": began, "deleted_at": None}
        if row is None:
            new.append({**values, "tenant": split_stored(name)[0]})
        else:
            old.append(values)
    if new:
        session.execute(insert(AdapterRow), new)
    if old:
        session.execute(update(AdapterRow), old)


def _move_live(session: Session, moves: Sequence[tuple[str, int]]) -> None:
    last = dict(moves)
    session.execute(delete(AliasRow).where(AliasRow.adapter.in_(last), AliasRow.alias == LIVE))
    aliases = [{"adapter": name, "alias": LIVE, "version": version} for name, version in last.items()]
    session.execute(insert(AliasRow), aliases)
    session.execute(insert(LiveRow), [{"adapter": name, "version": version} for name, version in moves])

"""Moves aliases, which ends their splits, and keeps the history of the versions of `live`."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import NoPreviousVersion
from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.rollout.splits import end_split
from rootstock.adapters.registry.sql.tables import AliasRow, LiveRow


def live_version(session: Session, name: str) -> int | None:
    """Return the version that the name alone means; None if there is none."""
    row = session.get(AliasRow, (name, LIVE))
    return None if row is None else row.version


def move_live(session: Session, history: History, name: str, version: int) -> None:
    """Point `live` at `version`, and add the version at the end of the history of `live`."""
    point(session, history, name, LIVE, version)
    session.add(LiveRow(adapter=name, version=version))
    session.flush()


def step_back(session: Session, history: History, name: str, called: str) -> int:
    """Point `live` at the previous version of its history and return that version.

    Raise NoPreviousVersion if the history holds no earlier version; its message has the name `called`.
    """
    present = live_version(session, name)
    last = _last(session, name)
    # After a version is deleted, the history can hold another version twice in a row.
    while last is not None and last.version == present:
        session.delete(last)
        session.flush()
        last = _last(session, name)
    if last is None:
        raise NoPreviousVersion(
            f"'live' of adapter {called!r} points at {'nothing' if present is None else f'version {present}'}, "
            "and its history holds no earlier version that still exists; set 'live' to a version's number instead"
        )
    point(session, history, name, LIVE, last.version)
    return last.version


def previous_live(session: Session, name: str) -> int | None:
    """Return the version that a rollback makes live now; None if there is none."""
    query = select(LiveRow.version).where(LiveRow.adapter == name)
    present = live_version(session, name)
    if present is not None:
        query = query.where(LiveRow.version != present)
    return session.scalars(query.order_by(LiveRow.id.desc()).limit(1)).first()


def point(session: Session, history: History, name: str, alias: str, version: int) -> None:
    """Point `alias` at `version`, whether or not the alias exists, and end its split."""
    end_split(session, history, name, alias, {"reason": "alias_moved"})
    row = session.get(AliasRow, (name, alias))
    if row is None:
        session.add(AliasRow(adapter=name, alias=alias, version=version))
    else:
        row.version = version
    session.flush()


def _last(session: Session, name: str) -> LiveRow | None:
    return session.scalars(
        select(LiveRow).where(LiveRow.adapter == name).order_by(LiveRow.id.desc()).limit(1)
    ).first()

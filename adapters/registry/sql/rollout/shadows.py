"""Sets and ends the shadow of an adapter, in a transaction of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from rootstock.adapters.errors import InvalidShadow, NoShadow
from rootstock.adapters.registry.rollout_records import Shadow
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.live import live_version
from rootstock.adapters.registry.sql.tables import ShadowRow, VersionRow
from rootstock.adapters.spec import GENERATION


def shadow_of(session: Session, stored: str) -> Shadow | None:
    """Return the shadow of an adapter; None without one, and if its version is gone or live by now."""
    row = session.get(ShadowRow, stored)
    if row is None or session.get(VersionRow, (stored, row.version)) is None:
        return None
    return None if row.version == live_version(session, stored) else Shadow(row.version, row.percent)


def set_shadow(session: Session, history: History, target: VersionRow, percent: float, called: str) -> Shadow:
    """Let a version compute a share of live's requests, in place of the shadow that the adapter has.

    Raise InvalidShadow if the version is live, if no version is, or if their answers cannot be compared.
    """
    shadow = Shadow(target.number, percent)
    shadow.check()
    live = live_version(session, target.adapter)
    if live is None:
        raise InvalidShadow(f"adapter {called!r} has no live version to shadow; point 'live' at a version first")
    if live == target.number:
        raise InvalidShadow(
            f"version {live} of adapter {called!r} is live, so it cannot shadow itself; choose another version",
            param="version",
        )
    task = session.get_one(VersionRow, (target.adapter, live)).task
    if target.task != task:
        raise InvalidShadow(
            f"version {target.number} is for {target.task}, and the live version is for {task}; choose a version "
            "for the same task",
            param="version",
        )
    if task in GENERATION:
        raise InvalidShadow(
            f"adapter {called!r} is for {task}, and generated texts are not compared; split its requests instead",
            param="version",
        )
    before = shadow_of(session, target.adapter)
    if before != shadow:
        row = session.get(ShadowRow, target.adapter)
        if row is None:
            session.add(ShadowRow(adapter=target.adapter, version=shadow.version, percent=percent))
        else:
            row.version, row.percent = shadow.version, percent
        history.note(
            "shadow_set", target.adapter, version=shadow.version, before=_json(before), after=_json(shadow)
        )
    return shadow


def end_shadow(
    session: Session, history: History, stored: str, called: str, detail: Mapping[str, Any] | None = None
) -> Shadow:
    """End the shadow of an adapter and return it; raise NoShadow if it has none. The event has `detail` too."""
    before = shadow_of(session, stored)
    row = session.get(ShadowRow, stored)
    if row is not None:
        session.delete(row)
        session.flush()
    if before is None:
        raise NoShadow(f"adapter {called!r} has no shadow to end; show the adapter to see what it has")
    history.note(
        "shadow_ended", stored, version=before.version, before=_json(before), after=None, **(detail or {})
    )
    return before


def _json(shadow: Shadow | None) -> dict[str, Any] | None:
    return None if shadow is None else {"version": shadow.version, "percent": shadow.percent}

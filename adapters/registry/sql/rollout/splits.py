"""Sets, reads and ends splits: shares of an alias's requests that go to other versions of its adapter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import and_, delete, exists, or_, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import InvalidSplit, NoSplit
from rootstock.adapters.reference import LIVE, shown
from rootstock.adapters.registry.records import AliasSplit, Viewer
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.lookup import find_alias, find_version
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, SplitRow, VersionRow
from rootstock.adapters.registry.sql.visibility import named

# A look-up reads all candidates of an alias.
MAX_CANDIDATES = 16
Shares = Mapping[int, float]


def read_splits(session: Session, stored: str) -> dict[str, dict[int, float]]:
    """Return the percents of an adapter's candidates by alias and version, in ascending order.

    A candidate without a version has no effect, and neither has one that the alias points at: a program without
    splits may have deleted the one, and moved the alias to the other.
    """
    rows = session.execute(
        select(SplitRow.alias, SplitRow.version, SplitRow.percent)
        .join(VersionRow, and_(VersionRow.adapter == SplitRow.adapter, VersionRow.number == SplitRow.version))
        .join(AliasRow, and_(AliasRow.adapter == SplitRow.adapter, AliasRow.alias == SplitRow.alias))
        .where(SplitRow.adapter == stored, AliasRow.version != SplitRow.version)
        .order_by(SplitRow.alias, SplitRow.version)
    )
    splits: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for alias, version, percent in rows:
        splits[alias][version] = percent
    return dict(splits)


def write_split(
    session: Session,
    history: History,
    adapter: AdapterRow,
    alias: str,
    shares: Shares,
    viewer: Viewer | None = None,
) -> AliasSplit:
    """Give versions these shares of an alias's requests, in place of the split that it has.

    Raise UnknownAlias or NoLiveVersion if the alias points at nothing, UnknownVersion for a version that does not
    exist, and InvalidSplit for shares that versions cannot have.
    """
    check_shares(shares)
    pointer = find_alias(session, adapter, alias, viewer)
    _check_versions(session, adapter, pointer, shares, viewer)
    before = read_splits(session, pointer.adapter).get(pointer.alias, {})
    after = {version: float(percent) for version, percent in sorted(shares.items())}
    if before != after:
        _forget(session, pointer.adapter, alias)
        for version, percent in after.items():
            session.add(SplitRow(adapter=pointer.adapter, alias=alias, version=version, percent=percent))
        session.flush()
        change = {"before": _document(before), "after": _document(after)}
        history.note("split_set", pointer.adapter, version=pointer.version, alias=alias, **change)
    return AliasSplit(named(adapter.name, viewer), alias, pointer.version, after)


def end_split(
    session: Session, history: History, stored: str, alias: str, detail: Mapping[str, Any]
) -> Shares | None:
    """End an alias's split, and return its shares; None if it has none. The event's detail has `detail` too."""
    before = read_splits(session, stored).get(alias)
    _forget(session, stored, alias)
    if before is not None:
        pointer = session.get(AliasRow, (stored, alias))
        change = {"before": _document(before), "after": {}, **detail}
        version = None if pointer is None else pointer.version
        history.note("split_ended", stored, version=version, alias=alias, **change)
    return before


def aliases_split_over(session: Session, stored: str, version: int) -> list[str]:
    """Return the aliases whose split has a version as a candidate."""
    return [alias for alias, shares in read_splits(session, stored).items() if version in shares]


def end_splits_of(session: Session, history: History, stored: str, version: int) -> None:
    """End each split that has a version as a candidate, or whose alias points at it: the version is deleted.

    The other candidates of such a split end with it: they would get other requests than before.
    """
    pointing = exists().where(
        AliasRow.adapter == SplitRow.adapter, AliasRow.alias == SplitRow.alias, AliasRow.version == version
    )
    concerned = select(SplitRow.alias).where(SplitRow.adapter == stored)
    aliases = session.scalars(concerned.where(or_(SplitRow.version == version, pointing)).distinct())
    for alias in sorted(aliases):
        end_split(session, history, stored, alias, {"reason": "version_deleted", "deleted": version})


def end_splits_of_live(session: Session, history: History, names: Collection[str]) -> None:
    """End the splits of `live` of these adapters, with one query if there are none."""
    split = select(SplitRow.adapter).where(SplitRow.adapter.in_(names), SplitRow.alias == LIVE).distinct()
    for stored in sorted(session.scalars(split)):
        end_split(session, history, stored, LIVE, {"reason": "alias_moved"})


def no_split(called: str, alias: str) -> NoSplit:
    """Return the error for an alias that has no split to end."""
    return NoSplit(f"alias {alias!r} of adapter {called!r} has no split; show the adapter to see its splits")


def check_shares(shares: Shares) -> None:
    """Raise InvalidSplit unless the percents are above 0 and at most 100 in all, for at most MAX_CANDIDATES."""
    if not 1 <= len(shares) <= MAX_CANDIDATES:
        raise InvalidSplit(
            f"the split has {len(shares)} candidates; give 1 to {MAX_CANDIDATES}, or end it instead",
            param="candidates",
        )
    for version, percent in shares.items():
        # Not "percent <= 0 or …": a number that is no number is neither.
        if not 0 < percent <= 100:
            raise InvalidSplit(
                f"version {shown(version)} has {percent:g} percent; give more than 0 and at most 100, or leave "
                "the version out",
                param="candidates",
            )
    # Three times 33.3 and 0.1 shall be 100.
    if (total := math.fsum(shares.values())) > 100 + 1e-9:
        raise InvalidSplit(
            f"the candidates have {total:g} percent in all; give at most 100, and the version that the alias "
            "points at gets the rest",
            param="candidates",
        )


def _check_versions(
    session: Session, adapter: AdapterRow, pointer: AliasRow, shares: Shares, viewer: Viewer | None
) -> None:
    task = find_version(session, adapter, pointer.version, viewer).task
    for number in sorted(shares):
        if number == pointer.version:
            raise InvalidSplit(
                f"alias {pointer.alias!r} points at version {number}, which gets the rest of the requests; give "
                "other versions",
                param="candidates",
            )
        candidate = find_version(session, adapter, number, viewer)
        if candidate.task != task:
            raise InvalidSplit(
                f"version {number} is for {candidate.task}, and alias {pointer.alias!r} points at one for "
                f"{task}; a split is between versions for one task",
                param="candidates",
            )


def _forget(session: Session, stored: str, alias: str) -> None:
    session.execute(delete(SplitRow).where(SplitRow.adapter == stored, SplitRow.alias == alias))


def _document(shares: Shares) -> dict[str, float]:
    return {str(version): percent for version, percent in shares.items()}

"""Reads what servers shadow and judge, and carries out the verdicts of rollback rules."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import NoPreviousVersion, NoShadow
from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.rollout_records import Rollout, RuleVerdict, Shadow
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.live import live_version, previous_live, step_back
from rootstock.adapters.registry.sql.rollout.rollback_rules import rule_in
from rootstock.adapters.registry.sql.rollout.shadows import end_shadow
from rootstock.adapters.registry.sql.rollout.splits import end_split, read_splits
from rootstock.adapters.registry.sql.tables import (
    AdapterRow,
    AliasRow,
    EventRow,
    LiveRow,
    RollbackRuleRow,
    ShadowRow,
    SplitRow,
    VersionRow,
)

# The events of a move of `live`.
_MOVES = ("alias_set", "rolled_back")


def rollouts(session: Session) -> list[Rollout]:
    """Return what is to be shadowed and judged: every adapter with a shadow or a rollback rule."""
    named = select(ShadowRow.adapter).union(select(RollbackRuleRow.adapter)).subquery()
    present = select(AdapterRow.name).where(
        AdapterRow.name.in_(select(named.c.adapter)), AdapterRow.deleted_at.is_(None)
    )
    names = list(session.scalars(present.order_by(AdapterRow.name)))
    if not names:
        return []
    versions = _versions(session, present)
    live = {
        row.adapter: row.version
        for row in session.scalars(select(AliasRow).where(AliasRow.alias == LIVE, AliasRow.adapter.in_(present)))
    }
    rules = {row.adapter: rule_in(row) for row in session.scalars(select(RollbackRuleRow))}
    shadows = {row.adapter: Shadow(row.version, row.percent) for row in session.scalars(select(ShadowRow))}
    splits: defaultdict[str, dict[int, float]] = defaultdict(dict)
    of_live = select(SplitRow).where(SplitRow.alias == LIVE, SplitRow.adapter.in_(present))
    for row in session.scalars(of_live.order_by(SplitRow.version)):
        splits[row.adapter][row.version] = row.percent
    moves, previous = _moves(session), _previous(session)
    found = []
    for name in names:
        here, now = versions[name], live.get(name)
        shadow = shadows.get(name)
        move = moves.get(name)
        before = None if move is None or move.what != "alias_set" else move.detail.get("before")
        found.append(
            Rollout(
                name,
                now,
                # A version that came back after its deletion is not in the history that a rollback follows. To
                # judge `live` against it could make an older version live that nobody compared.
                before if before in here and before == previous.get(name) else None,
                None if move is None else move.at,
                {version: percent for version, percent in splits[name].items() if version in here - {now}},
                shadow if shadow is not None and shadow.version in here - {now} else None,
                rules.get(name),
            )
        )
    return found


def carry_out(session: Session, history: History, verdict: RuleVerdict) -> bool:
    """End a split or a shadow, or move `live` back, as a verdict asks. Return whether that changed anything.

    Nothing changes if the rule is gone, or if the version is no longer at the stage at which it was judged.
    """
    stored, detail = verdict.name, verdict.detail()
    if session.get(RollbackRuleRow, stored) is None:
        return False
    if verdict.stage == "shadow":
        row = session.get(ShadowRow, stored)
        if row is None or row.version != verdict.version:
            return False
        try:
            end_shadow(session, history, stored, stored, detail)
        except NoShadow:
            return False
        return True
    if verdict.stage == "split":
        return _end_split(session, history, verdict)
    if live_version(session, stored) != verdict.version or previous_live(session, stored) != verdict.incumbent:
        return False
    try:
        version = step_back(session, history, stored, stored)
    except NoPreviousVersion:
        return False
    history.note("rolled_back", stored, version=version, alias=LIVE, before=verdict.version, **detail)
    return True


def _end_split(session: Session, history: History, verdict: RuleVerdict) -> bool:
    if verdict.version not in read_splits(session, verdict.name).get(LIVE, {}):
        return False
    detail = {"candidate": verdict.version, **verdict.detail()}
    return end_split(session, history, verdict.name, LIVE, detail) is not None


def _versions(session: Session, names: Select[str]) -> defaultdict[str, set[int]]:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name, number in session.execute(
        select(VersionRow.adapter, VersionRow.number).where(VersionRow.adapter.in_(names))
    ):
        found[name].add(number)
    return found


def _moves(session: Session) -> dict[str, EventRow]:
    """Return the event of the last move of `live` of each adapter with a rule."""
    # Newest first along the index of an adapter's events, so that a long history costs nothing.
    last = (
        select(EventRow.id)
        .where(EventRow.name == RollbackRuleRow.adapter, EventRow.alias == LIVE, EventRow.what.in_(_MOVES))
        .order_by(EventRow.id.desc())
        .limit(1)
        .correlate(RollbackRuleRow)
        .scalar_subquery()
    )
    ids = select(last).select_from(RollbackRuleRow)
    return {row.name: row for row in session.scalars(select(EventRow).where(EventRow.id.in_(ids)))}


def _previous(session: Session) -> dict[str, int]:
    """Return the version that a rollback makes live now, for each adapter with a rule and a live version."""
    last = (
        select(LiveRow.id)
        .where(LiveRow.adapter == AliasRow.adapter, LiveRow.version != AliasRow.version)
        .order_by(LiveRow.id.desc())
        .limit(1)
        .correlate(AliasRow)
        .scalar_subquery()
    )
    ruled = select(last).select_from(AliasRow).join(RollbackRuleRow, RollbackRuleRow.adapter == AliasRow.adapter)
    ids = ruled.where(AliasRow.alias == LIVE)
    return {row.adapter: row.version for row in session.scalars(select(LiveRow).where(LiveRow.id.in_(ids)))}

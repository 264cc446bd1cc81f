"""Splits, shadows and rollback rules as a registry offers them."""

from collections.abc import Mapping
from typing import Any

from rootstock.adapters.reference import check_alias, split_stored
from rootstock.adapters.registry.records import AliasPointer, AliasSplit, Viewer
from rootstock.adapters.registry.rollout_records import (
    RULE,
    NamedRule,
    NamedShadow,
    RollbackRule,
    Rollout,
    RuleVerdict,
)
from rootstock.adapters.registry.sql.database import revision
from rootstock.adapters.registry.sql.lookup import find_alias, find_version
from rootstock.adapters.registry.sql.rollout.rollback_rules import find_rule, remove_rule, set_rule
from rootstock.adapters.registry.sql.rollout.rollouts import carry_out, rollouts
from rootstock.adapters.registry.sql.rollout.shadows import end_shadow, set_shadow
from rootstock.adapters.registry.sql.rollout.splits import end_split, no_split, write_split
from rootstock.adapters.registry.sql.transactions import RegistryTransactions
from rootstock.adapters.registry.sql.visibility import find_adapter, named


class RolloutChanges(RegistryTransactions):
    """The part of a registry that tries versions out, and takes them back."""

    def set_shadow(self, name: str, version: int, percent: float, viewer: Viewer | None = None) -> NamedShadow:
        """Let a version compute a share of live's requests without answering them."""
        with self._changing(name, viewer) as (session, history, adapter):
            called, target = named(adapter.name, viewer), find_version(session, adapter, version, viewer)
            return NamedShadow(called, set_shadow(session, history, target, percent, called))

    def end_shadow(self, name: str, viewer: Viewer | None = None) -> NamedShadow:
        """End the shadow of an adapter and return it; raise NoShadow if it has none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            return NamedShadow(called, end_shadow(session, history, adapter.name, called))

    def set_rule(self, name: str, rule: RollbackRule, viewer: Viewer | None = None) -> NamedRule:
        """Set the rollback rule of an adapter; raise InvalidRule for a value outside its bounds."""
        with self._changing(name, viewer) as (session, history, adapter):
            set_rule(session, history, adapter.name, rule)
            return NamedRule(named(adapter.name, viewer), rule)

    def rule(self, name: str, viewer: Viewer | None = None) -> NamedRule:
        """Return the rollback rule of an adapter; raise NoRule if it has none."""
        with self._database.reading() as session:
            adapter = find_adapter(session, name, viewer)
            called = named(adapter.name, viewer)
            return NamedRule(called, find_rule(session, adapter.name, called))

    def remove_rule(self, name: str, viewer: Viewer | None = None) -> NamedRule:
        """Remove the rollback rule of an adapter and return it; raise NoRule if it has none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            return NamedRule(called, remove_rule(session, history, adapter.name, called))

    def rollouts(self, since: int = -1) -> tuple[int, list[Rollout]] | None:
        """Return the revision, and every adapter with a shadow or a rule; None if it is still `since`."""
        with self._database.reading() as session:
            # Read the revision first: what is read after it may be newer, and is then read again.
            number = revision(session)
            return None if number == since else (number, rollouts(session))

    def carry_out(self, verdict: RuleVerdict) -> bool:
        """End a split or a shadow, or move `live` back, as a verdict asks; return whether anything changed."""
        by_rule = Viewer(split_stored(verdict.name)[0], RULE)
        with self._writing(verdict.name, by_rule) as (session, history):
            return carry_out(session, history, verdict)

    def set_split(
        self, name: str, alias: str, candidates: Mapping[int, float], viewer: Viewer | None = None
    ) -> AliasSplit:
        """Let versions answer these percents of an alias's requests, in place of the split that it has.

        A move of the alias ends the split. Raise InvalidSplit for shares that versions cannot have.
        """
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            return write_split(session, history, adapter, alias, candidates, viewer)

    def end_split(
        self, name: str, alias: str, detail: Mapping[str, Any] | None = None, viewer: Viewer | None = None
    ) -> AliasPointer:
        """Let an alias mean one version again; raise NoSplit if it has no split. The event has `detail` too."""
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            pointer = find_alias(session, adapter, alias, viewer)
            called = named(adapter.name, viewer)
            if end_split(session, history, adapter.name, alias, detail or {"reason": "asked"}) is None:
                raise no_split(called, alias)
            target = find_version(session, adapter, pointer.version, viewer)
            return AliasPointer(called, alias, pointer.version, target.digest)

"""Sets and removes the rollback rule of an adapter, in a transaction of the registry."""

from __future__ import annotations

from sqlalchemy.orm import Session

from rootstock.adapters.errors import NoRule
from rootstock.adapters.registry.rollout_records import RollbackRule
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.tables import RollbackRuleRow


def rule_in(row: RollbackRuleRow) -> RollbackRule:
    """Return the rule in a row."""
    return RollbackRule(
        row.window_seconds, row.min_requests, row.max_error_rate, row.max_disagreement, row.max_p95_ratio
    )


def rule_of(session: Session, stored: str) -> RollbackRule | None:
    """Return the rollback rule of an adapter; None without one."""
    row = session.get(RollbackRuleRow, stored)
    return None if row is None else rule_in(row)


def find_rule(session: Session, stored: str, called: str) -> RollbackRule:
    """Return the rollback rule of an adapter; raise NoRule, with the name `called`, if it has none."""
    rule = rule_of(session, stored)
    if rule is None:
        raise NoRule(f"adapter {called!r} has no rollback rule; set one by its limits")
    return rule


def set_rule(session: Session, history: History, stored: str, rule: RollbackRule) -> None:
    """Set the rollback rule of an adapter, in place of the one that it has; raise InvalidRule."""
    rule.check()
    before = rule_of(session, stored)
    if before != rule:
        session.merge(RollbackRuleRow(adapter=stored, **rule.to_json()))
        history.note(
            "rule_set", stored, before=None if before is None else before.to_json(), after=rule.to_json()
        )


def remove_rule(session: Session, history: History, stored: str, called: str) -> RollbackRule:
    """Remove the rollback rule of an adapter and return it; raise NoRule if it has none."""
    before = find_rule(session, stored, called)
    session.delete(session.get_one(RollbackRuleRow, stored))
    history.note("rule_removed", stored, before=before.to_json(), after=None)
    return before

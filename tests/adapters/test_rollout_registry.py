"""Shadows, rollback rules and the verdicts of rules, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import get_args

import pytest

from rootstock.adapters.errors import (
    InvalidRule,
    InvalidShadow,
    NoRule,
    NoShadow,
    NotOwner,
    UnknownVersion,
    VersionInUse,
)
from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.adapters.registry.rollout_records import RollbackRule, Rollout, RuleVerdict, Shadow, Stage
from tests.adapters.registries import digest, publish

RULE = RollbackRule(60, 20, max_error_rate=0.05, max_disagreement=0.1)


@pytest.fixture
def sql_registry(registry_url: str) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(registry_url)) as opened:
        yield opened


@pytest.fixture
def spam(sql_registry: SqlRegistry) -> SqlRegistry:
    """Return a registry with three versions of `spam`, of which the second is live."""
    for content in "abc":
        publish(sql_registry, "spam", content, activate=False)
    sql_registry.set_alias("spam", LIVE, 1)
    sql_registry.set_alias("spam", LIVE, 2)
    return sql_registry


def the_rollouts(registry: SqlRegistry) -> list[Rollout]:
    found = registry.rollouts()
    assert found is not None
    return found[1]


def the_rollout(registry: SqlRegistry) -> Rollout:
    (rollout,) = the_rollouts(registry)
    return rollout


def verdict(stage: Stage, version: int) -> RuleVerdict:
    return RuleVerdict("spam", stage, version, 1, "max_disagreement", 0.4, 0.1, 57)


def split(registry: SqlRegistry, version: int, percent: float) -> None:
    registry.set_split("spam", LIVE, {version: percent})


def test_a_shadow_is_shown_until_it_ends_and_both_are_events(spam: SqlRegistry) -> None:
    spam.set_shadow("spam", 3, 20)
    assert spam.show("spam").shadow == Shadow(3, 20)
    spam.set_shadow("spam", 1, 50)
    assert spam.end_shadow("spam").shadow == Shadow(1, 50)
    assert spam.show("spam").shadow is None
    events = [(event.what, event.version, event.detail) for event in spam.events("spam", 3)]
    assert events == [
        ("shadow_ended", 1, {"before": {"version": 1, "percent": 50}, "after": None}),
        (
            "shadow_set",
            1,
            {"before": {"version": 3, "percent": 20}, "after": {"version": 1, "percent": 50}},
        ),
        ("shadow_set", 3, {"before": None, "after": {"version": 3, "percent": 20}}),
    ]


def test_a_shadow_that_is_set_twice_is_one_event(spam: SqlRegistry) -> None:
    spam.set_shadow("spam", 3, 20)
    spam.set_shadow("spam", 3, 20)
    assert [event.what for event in spam.events("spam", 2)] == ["shadow_set", "alias_set"]


def test_a_share_outside_its_bounds_makes_no_shadow(spam: SqlRegistry) -> None:
    for percent in (0, -1, 100.5, float("nan"), float("inf")):
        with pytest.raises(InvalidShadow, match="above 0 and at most 100"):
            spam.set_shadow("spam", 3, percent)
    assert spam.show("spam").shadow is None


def test_a_version_that_cannot_be_compared_with_live_makes_no_shadow(spam: SqlRegistry) -> None:
    with pytest.raises(InvalidShadow, match="version 2 of adapter 'spam' is live"):
        spam.set_shadow("spam", 2, 10)
    with pytest.raises(UnknownVersion):
        spam.set_shadow("spam", 9, 10)
    publish(spam, "ham", "a", activate=False)
    with pytest.raises(InvalidShadow, match="no live version"):
        spam.set_shadow("ham", 1, 10)
    spam.publish("spam", digest("tags"), task="token-classification", verification={}, size=1, activate=False)
    with pytest.raises(InvalidShadow, match="is for token-classification, and the live version is for text"):
        spam.set_shadow("spam", 4, 10)


def test_generated_texts_are_not_shadowed(sql_registry: SqlRegistry) -> None:
    for content in "ab":
        sql_registry.publish("poet", digest(content), task="text-generation", verification={}, size=1)
    with pytest.raises(InvalidShadow, match="generated texts are not compared"):
        sql_registry.set_shadow("poet", 1, 10)


def test_to_end_a_shadow_or_a_rule_that_is_not_there_is_an_error(spam: SqlRegistry) -> None:
    with pytest.raises(NoShadow):
        spam.end_shadow("spam")
    for call in (spam.remove_rule, spam.rule):
        with pytest.raises(NoRule):
            call("spam")


def test_a_shadow_whose_version_is_live_or_gone_has_no_effect(spam: SqlRegistry) -> None:
    spam.set_shadow("spam", 3, 20)
    spam.set_alias("spam", LIVE, 3)
    assert spam.show("spam").shadow is None
    assert the_rollout(spam).shadow is None
    spam.set_alias("spam", LIVE, 2)
    with pytest.raises(VersionInUse, match="the shadow of 'live'"):
        spam.delete_version("spam", 3)
    spam.delete_version("spam", 3, force=True, restorable=True)
    assert the_rollouts(spam) == []
    ended, deleted = spam.events("spam", 2)[::-1]
    assert (ended.what, ended.detail["reason"], deleted.what) == (
        "shadow_ended",
        "version_deleted",
        "version_deleted",
    )
    spam.undelete("spam", 3)
    assert the_rollouts(spam) == []


def test_a_rule_is_shown_until_it_is_removed_and_both_are_events(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    assert spam.show("spam").rule == spam.rule("spam").rule == RULE
    other = replace(RULE, max_p95_ratio=1.5)
    spam.set_rule("spam", other)
    assert spam.remove_rule("spam").rule == other
    assert spam.show("spam").rule is None
    events = [(event.what, event.detail) for event in spam.events("spam", 3)]
    assert events == [
        ("rule_removed", {"before": other.to_json(), "after": None}),
        ("rule_set", {"before": RULE.to_json(), "after": other.to_json()}),
        ("rule_set", {"before": None, "after": RULE.to_json()}),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_seconds": 0.5},
        {"window_seconds": float("nan")},
        {"min_requests": 0},
        {"min_requests": 1001},
        {"max_error_rate": 1.1},
        {"max_disagreement": -0.1},
        {"max_p95_ratio": 0.9},
        {"max_error_rate": None, "max_disagreement": None},
    ],
)
def test_a_rule_outside_its_bounds_is_refused(wrong: dict[str, float | None]) -> None:
    RULE.check()
    with pytest.raises(InvalidRule):
        replace(RULE, **wrong).check()  # type: ignore[arg-type]


def test_the_registry_takes_no_rule_outside_its_bounds(spam: SqlRegistry) -> None:
    with pytest.raises(InvalidRule):
        spam.set_rule("spam", replace(RULE, min_requests=0))
    assert spam.show("spam").rule is None


def test_a_deleted_adapter_loses_its_shadow_and_its_rule(spam: SqlRegistry) -> None:
    spam.set_shadow("spam", 3, 20)
    spam.set_rule("spam", RULE)
    spam.delete_adapter("spam")
    publish(spam, "spam", "d")
    assert spam.show("spam").rule is None
    found = spam.rollouts()
    assert found is not None
    assert found[1] == []


def test_only_the_tenant_of_an_adapter_shadows_and_rules_it(sql_registry: SqlRegistry) -> None:
    acme, beta = TenantRegistry(sql_registry, "acme", "acme/k"), TenantRegistry(sql_registry, "beta")
    for content in "ab":
        publish(acme, "spam", content)
    acme.share("spam", True)
    with pytest.raises(NotOwner):
        beta.set_shadow("acme/spam", 1, 10)
    with pytest.raises(NotOwner):
        beta.set_rule("acme/spam", RULE)
    acme.set_rule("spam", RULE)
    assert the_rollout(sql_registry).name == "acme/spam"
    assert acme.events("spam", 1)[0].who == "acme/k"


def test_servers_read_live_its_split_its_shadow_and_its_last_move(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    split(spam, 1, 10)
    spam.set_shadow("spam", 3, 20)
    rollout = the_rollout(spam)
    moved = next(event for event in spam.events("spam") if event.what == "alias_set")
    assert rollout == Rollout("spam", 2, 1, moved.at, {1: 10}, Shadow(3, 20), RULE)


def test_a_rollback_leaves_nothing_to_go_back_to(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    spam.rollback("spam")
    assert (the_rollout(spam).live, the_rollout(spam).before) == (1, None)


def test_live_is_judged_only_against_the_version_that_a_rollback_makes_live(spam: SqlRegistry) -> None:
    """A version that was deleted and came back is not in the history of `live`, which leads to an older one."""
    spam.set_alias("spam", LIVE, 3)
    spam.set_rule("spam", RULE)
    assert the_rollout(spam).before == 2
    spam.delete_version("spam", 2, restorable=True)
    spam.undelete("spam", 2)
    assert the_rollout(spam).before is None
    judged = replace(verdict("live", 3), incumbent=2)
    assert not spam.carry_out(judged)
    assert spam.show("spam").live == 3
    assert spam.carry_out(replace(judged, incumbent=1))
    assert spam.show("spam").live == 1


def test_servers_read_again_only_after_a_change(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    first = spam.rollouts()
    assert first is not None
    assert spam.rollouts(first[0]) is None
    spam.set_shadow("spam", 3, 20)
    again = spam.rollouts(first[0])
    assert again is not None
    assert again[1][0].shadow == Shadow(3, 20)


def test_a_verdict_on_live_moves_it_back_under_the_name_of_the_rule(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    assert spam.carry_out(verdict("live", 2))
    assert spam.show("spam").live == 1
    event = spam.events("spam", 1)[0]
    assert (event.what, event.version, event.alias, event.who) == ("rolled_back", 1, LIVE, "rule")
    figures = {"reason": "max_disagreement", "measured": 0.4, "limit": 0.1, "requests": 57, "incumbent": 1}
    assert event.detail == {"before": 2, "after": 1, **figures}


def test_a_verdict_on_a_shadow_or_a_candidate_ends_it(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    spam.set_shadow("spam", 3, 20)
    assert spam.carry_out(verdict("shadow", 3))
    assert spam.show("spam").shadow is None
    ended = spam.events("spam", 1)[0]
    assert (ended.what, ended.who, ended.detail["reason"]) == ("shadow_ended", "rule", "max_disagreement")
    split(spam, 3, 10)
    assert spam.carry_out(verdict("split", 3))
    assert the_rollout(spam).candidates == {}
    ended = spam.events("spam", 1)[0]
    assert (ended.what, ended.who, ended.detail["requests"]) == ("split_ended", "rule", 57)


def test_a_verdict_on_what_is_no_longer_so_changes_nothing(spam: SqlRegistry) -> None:
    spam.set_rule("spam", RULE)
    spam.set_shadow("spam", 3, 20)
    split(spam, 3, 10)
    before = spam.events()
    for stage in get_args(Stage):
        assert not spam.carry_out(verdict(stage, 1))
    assert spam.events() == before


def test_a_verdict_of_a_rule_that_is_gone_changes_nothing(spam: SqlRegistry) -> None:
    assert not spam.carry_out(verdict("live", 2))
    assert spam.show("spam").live == 2


def test_a_verdict_on_the_first_live_version_changes_nothing(sql_registry: SqlRegistry) -> None:
    publish(sql_registry, "spam", "a")
    sql_registry.set_rule("spam", RULE)
    assert not sql_registry.carry_out(verdict("live", 1))
    assert sql_registry.show("spam").live == 1

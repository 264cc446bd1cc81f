"""Splits in the registry: who may set them, what a look-up returns, and what ends them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from rootstock.adapters import errors
from rootstock.adapters.registry import AliasSplit, NewVersion, SplitCandidate, SqlRegistry, TenantRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.registry.sql.tables import AliasRow, SplitRow
from tests.adapters.registries import address, digest, publish
from tests.bounds import HANG


@pytest.fixture
def spam(registry: Registry) -> Registry:
    """Four versions of `spam`; `live` and `prod` point at the first."""
    for content in "abcd":
        publish(registry, "spam", content)
    registry.set_alias("spam", "live", 1)
    registry.set_alias("spam", "prod", 1)
    return registry


def shares(registry: Registry, reference: str) -> dict[int, float]:
    return {one.version: one.percent for one in registry.resolve(reference).candidates}


def last(registry: Registry) -> tuple[str, int | None, str | None, dict[str, object]]:
    event = registry.events("spam", 1)[0]
    return event.what, event.version, event.alias, event.detail


def test_a_look_up_of_a_split_alias_returns_its_candidates_in_order_of_number(spam: Registry) -> None:
    split = spam.set_split("spam", "live", {4: 2.5, 2: 10})
    assert split == AliasSplit("spam", "live", 1, {2: 10.0, 4: 2.5})
    for reference in ("spam", "spam@live"):
        found = spam.resolve(reference)
        assert (found.version, found.digest, found.alias) == (1, digest("a"), "live")
        assert found.candidates == (
            SplitCandidate(2, digest("b"), None, "text-classification", 10.0),
            SplitCandidate(4, digest("d"), None, "text-classification", 2.5),
        )
    assert spam.show("spam").splits == {"live": {2: 10.0, 4: 2.5}}


def test_a_version_a_digest_and_another_alias_have_no_candidates(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10})
    for reference in ("spam@1", f"spam@{digest('a')}", "spam@prod"):
        assert spam.resolve(reference).candidates == ()
    assert spam.resolve("spam@1").alias is spam.resolve(f"spam@{digest('a')}").alias is None


def test_each_alias_has_its_own_split_and_a_new_one_replaces_it(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10, 3: 20})
    spam.set_split("spam", "prod", {3: 50})
    assert spam.set_split("spam", "live", {3: 30}).candidates == {3: 30.0}
    assert shares(spam, "spam") == {3: 30.0}
    assert shares(spam, "spam@prod") == {3: 50.0}
    assert spam.show("spam").splits == {"live": {3: 30.0}, "prod": {3: 50.0}}


def test_the_events_of_a_split_state_its_shares_before_and_after(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10})
    assert last(spam) == ("split_set", 1, "live", {"before": {}, "after": {"2": 10.0}})
    spam.set_split("spam", "live", {2: 25, 3: 5})
    assert last(spam) == ("split_set", 1, "live", {"before": {"2": 10.0}, "after": {"2": 25.0, "3": 5.0}})
    count = len(spam.events("spam"))
    spam.set_split("spam", "live", {3: 5.0, 2: 25.0})
    assert len(spam.events("spam")) == count, "the same split is no change"
    spam.end_split("spam", "live")
    before = {"2": 25.0, "3": 5.0}
    assert last(spam) == ("split_ended", 1, "live", {"before": before, "after": {}, "reason": "asked"})
    spam.set_split("spam", "live", {2: 1})
    spam.end_split("spam", "live", {"reason": "max_error_rate", "measured": 0.4})
    assert last(spam)[3] == {
        "before": {"2": 1.0}, "after": {}, "reason": "max_error_rate", "measured": 0.4,
    }  # fmt: skip


def test_an_ended_split_leaves_the_alias_where_it_was(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 100})
    pointer = spam.end_split("spam", "live")
    assert (pointer.version, pointer.digest) == (1, digest("a"))
    assert shares(spam, "spam") == {}
    with pytest.raises(errors.NoSplit, match="live"):
        spam.end_split("spam", "live")


@pytest.mark.parametrize("move", ["set_alias", "rollback", "publish", "publish_all"])
def test_every_move_of_live_ends_its_split_and_no_other(spam: Registry, move: str) -> None:
    spam.set_split("spam", "live", {2: 10})
    spam.set_split("spam", "prod", {2: 10})
    before = len(spam.events("spam"))
    if move == "set_alias":
        spam.set_alias("spam", "live", 2)
    elif move == "rollback":
        spam.rollback("spam")
    elif move == "publish":
        publish(spam, "spam", "e")
    else:
        spam.publish_all([NewVersion("spam", digest("e"), "text-classification", {}, 1)])
    new = spam.events("spam", len(spam.events("spam")) - before)
    (ended,) = [event for event in new if event.what == "split_ended"]
    assert (ended.version, ended.alias) == (1, "live")
    assert ended.detail == {"before": {"2": 10.0}, "after": {}, "reason": "alias_moved"}
    assert shares(spam, "spam") == {}
    assert shares(spam, "spam@prod") == {2: 10.0}


def test_a_call_that_moves_no_alias_keeps_the_split(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10})
    spam.set_alias("spam", "live", 1)
    spam.set_alias("spam", "prod", 2)
    publish(spam, "spam", "e", activate=False)
    publish(spam, "spam", "a")
    spam.publish_all([NewVersion("spam", digest("a"), "text-classification", {}, 1)])
    spam.share("spam", True)
    assert shares(spam, "spam") == {2: 10.0}


def test_a_candidate_is_deleted_only_by_force_and_then_its_split_ends(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10, 3: 20})
    spam.set_split("spam", "prod", {4: 5})
    with pytest.raises(errors.VersionInUse, match="live") as used:
        spam.delete_version("spam", 2)
    assert used.value.code == "version_in_use"
    assert shares(spam, "spam") == {2: 10.0, 3: 20.0}
    spam.delete_version("spam", 2, force=True)
    assert shares(spam, "spam") == {}
    assert shares(spam, "spam@prod") == {4: 5.0}
    (ended,) = [event for event in spam.events("spam") if event.what == "split_ended"]
    assert ended.detail == {
        "before": {"2": 10.0, "3": 20.0}, "after": {}, "reason": "version_deleted", "deleted": 2,
    }  # fmt: skip


def test_a_deleted_version_takes_the_splits_of_the_aliases_that_pointed_at_it(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10})
    spam.delete_version("spam", 1, force=True)
    assert spam.show("spam").splits == {}
    spam.set_alias("spam", "live", 3)
    assert shares(spam, "spam") == {}, "the split does not come back with the alias"


def test_a_deleted_adapter_has_no_split_when_its_name_comes_back(spam: Registry) -> None:
    spam.set_split("spam", "live", {2: 10})
    spam.delete_adapter("spam")
    publish(spam, "spam", "b")
    assert shares(spam, "spam") == {}
    assert spam.show("spam").splits == {}


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        ({}, "0 candidates"),
        ({2: 0}, "version 2 has 0 percent"),
        ({2: -1}, "version 2 has -1 percent"),
        ({2: 100.5}, "version 2 has 100.5 percent"),
        ({2: math.nan}, "nan"),
        ({2: math.inf}, "inf"),
        ({2: 60, 3: 41}, "101 percent in all"),
        ({1: 10}, "points at version 1"),
        (dict.fromkeys(range(2, 19), 1), "17 candidates"),
    ],
)
def test_shares_that_versions_cannot_have_are_refused_and_change_nothing(
    spam: Registry, candidates: dict[int, float], says: str
) -> None:
    spam.set_split("spam", "live", {2: 7})
    with pytest.raises(errors.InvalidSplit, match=says) as refused:
        spam.set_split("spam", "live", candidates)
    assert refused.value.param == "candidates"
    assert shares(spam, "spam") == {2: 7.0}


def test_a_split_needs_an_alias_and_versions_that_exist(spam: Registry) -> None:
    with pytest.raises(errors.UnknownVersion, match="99"):
        spam.set_split("spam", "live", {99: 10})
    with pytest.raises(errors.UnknownVersion):
        spam.set_split("spam", "live", {0: 10})
    with pytest.raises(errors.UnknownAlias, match="canary"):
        spam.set_split("spam", "canary", {2: 10})
    with pytest.raises(errors.UnknownAlias):
        spam.end_split("spam", "canary")
    with pytest.raises(errors.InvalidName):
        spam.set_split("spam", "no alias", {2: 10})
    with pytest.raises(errors.UnknownAdapter):
        spam.set_split("nobody", "live", {2: 10})
    publish(spam, "idle", "a", activate=False)
    with pytest.raises(errors.NoLiveVersion):
        spam.set_split("idle", "live", {1: 10})


def test_a_split_is_between_versions_of_one_task(spam: Registry) -> None:
    other = spam.publish("spam", digest("e"), task="fill-mask", verification={}, size=1, activate=False)
    with pytest.raises(errors.InvalidSplit, match="for fill-mask"):
        spam.set_split("spam", "live", {other.version: 10})


def test_the_shares_of_a_whole_may_be_thirds(spam: Registry) -> None:
    third = 100 / 3
    spam.set_split("spam", "live", {2: third, 3: third, 4: third})
    assert shares(spam, "spam") == {2: third, 3: third, 4: third}


def test_another_program_sees_a_split_and_its_end(registry_url: str) -> None:
    now = [0.0]
    with (
        closing(SqlRegistry(registry_url)) as one,
        closing(SqlRegistry(registry_url, clock=lambda: now[0])) as two,
    ):
        for content in "ab":
            publish(one, "spam", content)
        assert two.resolve("spam").candidates == ()

        def seen() -> dict[int, float]:
            # SQLite tells nobody: a look-up asks again once its state is a second old.
            now[0] += 2
            return shares(two, "spam")

        one.set_split("spam", "live", {1: 30})
        await_shares(seen, {1: 30.0})
        one.end_split("spam", "live")
        await_shares(seen, {})


def await_shares(seen: Callable[[], dict[int, float]], expected: dict[int, float]) -> None:
    deadline = time.monotonic() + HANG
    while seen() != expected:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_a_program_without_splits_leaves_behind_has_no_effect(registry_url: str) -> None:
    """A server of the release before deletes versions and moves aliases, and knows nothing of splits."""
    with closing(SqlRegistry(registry_url)) as registry:
        for content in "abc":
            publish(registry, "spam", content)
        registry.set_split("spam", "live", {1: 10, 2: 20})
        with registry._database.writing("spam") as (session, _):
            session.execute(insert(SplitRow).values(adapter="spam", alias="live", version=9, percent=30.0))
            session.execute(update(AliasRow).where(AliasRow.alias == "live").values(version=2))
        registry._resolutions.clear()
        assert shares(registry, "spam") == {1: 10.0}
        assert registry.show("spam").splits == {"live": {1: 10.0}}
        publish(registry, "spam", "d")
        registry.set_split("spam", "live", {3: 5})
        assert shares(registry, "spam") == {3: 5.0}


def test_a_tenant_s_split_is_its_own_and_only_it_sets_one(registry_url: str) -> None:
    with closing(SqlRegistry(registry_url)) as whole:
        acme, beta = TenantRegistry(whole, "acme", "acme/0123"), TenantRegistry(whole, "beta")
        for registry in (acme, beta):
            for content in "ab":
                publish(registry, "spam", (registry.tenant, content))
        acme.set_split("spam", "live", {1: 40})
        assert shares(acme, "spam") == {1: 40.0}
        assert acme.events("spam", 1)[0].who == "acme/0123"
        assert beta.resolve("spam").candidates == ()
        assert beta.show("spam").splits == {}
        assert {event.what for event in beta.events()} == {"published", "alias_set"}
        for call in (lambda: beta.set_split("acme/spam", "live", {1: 1}), lambda: beta.resolve("acme/spam")):
            with pytest.raises(errors.UnknownAdapter):
                call()
        acme.share("spam", True)
        assert shares(beta, "acme/spam") == {1: 40.0}, "who uses a shared adapter takes part in its split"
        assert beta.resolve("spam").candidates == ()
        with pytest.raises(errors.NotOwner):
            beta.set_split("acme/spam", "live", {1: 1})
        with pytest.raises(errors.NotOwner):
            beta.end_split("acme/spam", "live")
        assert shares(acme, "spam") == {1: 40.0}


def test_many_publications_at_once_number_the_events_of_splits_in_order_too(tmp_path: Path) -> None:
    with closing(SqlRegistry(address(tmp_path))) as whole:
        registry = TenantRegistry(whole, "acme")
        for content in "ab":
            publish(registry, "spam", content, activate=content == "a")
        registry.set_split("spam", "live", {2: 10})
        registry.publish_all([NewVersion("spam", digest("c"), "text-classification", {}, 1)])
        publish(registry, "spam", "d")
        events = registry.events()
        assert [event.id for event in events] == list(range(len(events), 0, -1))
        assert [event.what for event in events][:5] == [
            "alias_set", "published", "alias_set", "published", "split_ended",
        ]  # fmt: skip

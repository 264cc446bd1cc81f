"""Each event of a change states what was before and what is after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.registry import Event, NewVersion, SqlRegistry
from rootstock.adapters.registry.records import DAMAGED
from tests.adapters.registries import address, digest, publish


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(address(tmp_path))) as registry:
        yield registry


def states(events: list[Event]) -> list[tuple[str, Any, Any]]:
    """Return what each event tells, oldest first, of those that state something before."""
    return [(e.what, e.detail["before"], e.detail["after"]) for e in reversed(events) if "before" in e.detail]


def test_moves_of_aliases_state_the_version_before_and_after(registry: SqlRegistry) -> None:
    for content in "ab":
        publish(registry, "spam", content)
    registry.set_alias("spam", "prod", 1)
    registry.set_alias("spam", "prod", 2)
    registry.rollback("spam")
    assert states(registry.events("spam")) == [
        ("alias_set", None, 1),
        ("alias_set", 1, 2),
        ("alias_set", None, 1),
        ("alias_set", 1, 2),
        ("rolled_back", 2, 1),
    ]


def test_versions_that_are_published_together_state_the_same(registry: SqlRegistry) -> None:
    registry.publish_all([NewVersion("spam", digest(one), "text-classification", {}, 1) for one in "ab"])
    assert states(registry.events("spam")) == [("alias_set", None, 1), ("alias_set", 1, 2)]


def test_sharing_states_whether_an_adapter_was_and_is_shared(registry: SqlRegistry) -> None:
    publish(registry, "spam", "a", activate=False)
    for shared in (True, True, False):
        registry.share("spam", shared)
    assert states(registry.events("spam")) == [("shared", False, True), ("unshared", True, False)]


def test_a_new_signature_states_the_signer_before_and_after(registry: SqlRegistry) -> None:
    for signer in (None, "first", "second"):
        verification = {} if signer is None else {"signature": {"signer": signer}}
        registry.publish("spam", digest("a"), task="t", verification=verification, size=1, activate=False)
    assert states(registry.events("spam")) == [("signed", None, "first"), ("signed", "first", "second")]


@pytest.mark.parametrize("together", [True, False])
def test_a_version_that_was_damaged_and_is_stored_again_states_both_changes(
    registry: SqlRegistry, together: bool
) -> None:
    publish(registry, "spam", "a", activate=False)
    registry.mark(digest("a"), DAMAGED)
    if together:
        registry.publish_all([NewVersion("spam", digest("a"), "text-classification", {}, 1)])
    else:
        publish(registry, "spam", "a", activate=False)
    assert states(registry.events("spam")) == [
        ("marked_damaged", "ready", "damaged"),
        ("marked_ready", "damaged", "ready"),
    ]
    assert registry.version("spam", 1).status == "ready"

"""What a deletion keeps, who may bring it back, and what splits, shadows and a purge do with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from rootstock.adapters import errors
from rootstock.adapters.registry import NewVersion, SqlRegistry, TenantRegistry
from rootstock.adapters.registry.sql.tables import Base, ShadowRow, SplitRow
from tests.adapters.registries import digest, publish


@pytest.fixture
def whole(registry_url: str) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(registry_url)) as opened:
        yield opened


def add(url: str, *rows: Base) -> None:
    """Write rows of splits and shadows as another program does."""
    with Session(create_engine(url, poolclass=NullPool)) as session:
        session.add_all(rows)
        session.commit()


def left(url: str) -> list[tuple[str, int]]:
    """Return the aliases and versions of the splits that are left, and those of the shadow."""
    with Session(create_engine(url, poolclass=NullPool)) as session:
        splits = [(row.alias, row.version) for row in session.query(SplitRow).order_by(SplitRow.alias)]
        return [*splits, *(("shadow", row.version) for row in session.query(ShadowRow))]


def test_a_version_of_a_split_or_the_shadow_goes_only_by_force_and_ends_them(
    whole: SqlRegistry, registry_url: str
) -> None:
    for content in "abcd":
        publish(whole, "spam", content)
    whole.set_alias("spam", "prod", 1)
    add(
        registry_url,
        SplitRow(adapter="spam", alias="live", version=2, percent=10),
        SplitRow(adapter="spam", alias="prod", version=3, percent=10),
        ShadowRow(adapter="spam", version=3, percent=10),
    )
    with pytest.raises(errors.VersionInUse, match="the split of 'live'; end it first"):
        whole.delete_version("spam", 2)
    with pytest.raises(errors.VersionInUse, match="the split of 'prod' and the shadow of 'live'"):
        whole.delete_version("spam", 3)
    whole.delete_version("spam", 3, force=True, restorable=True)
    assert left(registry_url) == [("live", 2)]
    deleted, *ended = whole.events(limit=3)
    assert deleted.detail == {"digest": digest("c"), "aliases": [], "restorable": True}
    assert {(one.what, one.alias, one.detail["reason"]) for one in ended} == {
        ("split_ended", "prod", "version_deleted"), ("shadow_ended", None, "version_deleted"),
    }  # fmt: skip
    whole.delete_version("spam", 4, force=True)
    assert left(registry_url) == [], "the split of an alias that goes has no incumbent"


def test_retention_keeps_the_versions_of_splits_and_of_the_shadow(whole: SqlRegistry, registry_url: str) -> None:
    for content in "abcdef":
        publish(whole, "spam", content)
    add(
        registry_url,
        SplitRow(adapter="spam", alias="live", version=1, percent=10),
        ShadowRow(adapter="spam", version=3, percent=10),
    )
    assert whole.surplus("spam", 1) == [digest("b"), digest("d")]
    assert whole.retire("spam", 1, restorable=True) == [digest("b"), digest("d")]
    assert left(registry_url) == [("live", 1), ("shadow", 3)]
    assert [one.version for one in whole.deleted("spam")] == [2, 4]


def test_with_an_adapter_go_its_splits_and_its_shadow_and_they_do_not_come_back(
    whole: SqlRegistry, registry_url: str
) -> None:
    publish(whole, "spam", "a")
    publish(whole, "spam", "b")
    whole.share("spam", True)
    add(
        registry_url,
        SplitRow(adapter="spam", alias="live", version=1, percent=10),
        ShadowRow(adapter="spam", version=1, percent=10),
    )
    whole.delete_adapter("spam", restorable=True)
    assert whole.undelete("spam").aliases == {"live": 2}
    assert left(registry_url) == []
    assert whole.show("spam").shared is False


def test_a_version_is_purged_once_its_time_is_over_and_not_if_it_was_deleted_again_later(
    whole: SqlRegistry,
) -> None:
    publish(whole, "spam", "a", activate=False)
    whole.delete_version("spam", 1, restorable=True)
    early = datetime.now(UTC)
    assert [(one.name, one.version) for one in whole.expired(early)] == [("spam", 1)]
    assert whole.expired(early - timedelta(days=1)) == []
    whole.undelete("spam", 1)
    whole.delete_version("spam", 1, restorable=True)
    assert whole.purge("spam", 1, early) is None
    assert whole.purge("spam", 1, datetime.now(UTC)) == digest("a")
    assert whole.purge("spam", 1, datetime.now(UTC)) is None
    assert [one.what for one in whole.events()].count("version_purged") == 1


def test_a_tenant_s_deleted_versions_do_not_exist_for_others(whole: SqlRegistry) -> None:
    acme, beta = TenantRegistry(whole, "acme"), TenantRegistry(whole, "beta")
    publish(acme, "spam", "a")
    acme.delete_version("spam", 1, force=True, restorable=True)
    for name in ("spam", "acme/spam", "nobody"):
        for use in (beta.deleted, beta.undelete, beta.delete_adapter):
            with pytest.raises(errors.UnknownAdapter):
                use(name)
    acme.share("spam", True)
    for use in (beta.deleted, beta.undelete, beta.delete_adapter):
        with pytest.raises(errors.NotOwner):
            use("acme/spam")
    assert acme.undelete("spam", 1).aliases == {"live": 1}


def test_a_version_records_who_published_it_and_tells_its_own_tenant_alone(whole: SqlRegistry) -> None:
    acme, beta = TenantRegistry(whole, "acme", "acme/key"), TenantRegistry(whole, "beta")
    publish(acme, "spam", "a")
    acme.publish_all([NewVersion("spam", digest("b"), "t", {}, 1)])
    publish(TenantRegistry(whole, "acme", "acme/other"), "spam", "a")
    acme.share("spam", True)
    assert [one.published_by for one in acme.show("spam").versions] == ["acme/key"] * 2
    assert [one.published_by for one in beta.show("acme/spam").versions] == [None] * 2
    assert beta.version("acme/spam", 1).published_by is None
    acme.delete_version("spam", 1, force=True, restorable=True)
    acme.undelete("spam", 1)
    assert acme.version("spam", 1).published_by == "acme/key"


def test_the_bytes_of_deleted_versions_count_until_they_are_purged(whole: SqlRegistry) -> None:
    for number, size in ((1, 10), (2, 200)):
        whole.publish("spam", digest(number), task="t", verification={}, size=size)
    whole.publish("ham", digest(1), task="t", verification={}, size=10)
    whole.delete_version("spam", 1, restorable=True)
    whole.delete_version("spam", 2, force=True, restorable=True)
    assert whole.keys.stored_bytes("default") == 210
    assert whole.keys.stored_bytes("default", besides=digest(2)) == 10
    whole.delete_version("spam", 2)
    assert whole.keys.stored_bytes("default") == 10
    assert whole.keys.stored_bytes("acme") == 0


def test_a_request_for_activation_is_recorded_once_until_something_else_happens_to_the_version(
    whole: SqlRegistry,
) -> None:
    publish(whole, "spam", "a")
    publish(whole, "spam", "b", activate=False)
    for _ in range(2):
        whole.request_activation("spam", 2)
    whole.set_alias("spam", "prod", 2)
    whole.request_activation("spam", 2)
    asked = [one for one in whole.events() if one.what == "activation_requested"]
    assert [(one.version, one.alias, one.detail) for one in asked] == [(2, "live", {"before": 1, "after": 2})] * 2
    assert whole.resolve("spam").version == 1
    with pytest.raises(errors.UnknownVersion):
        whole.request_activation("spam", 9)

"""The rules of versions, aliases, rollback and deletion, on a real database file and a real PostgreSQL."""

import pytest

from rootstock.adapters import errors
from rootstock.adapters.reference import Reference
from rootstock.adapters.registry import AliasPointer, Published, Resolution
from rootstock.adapters.registry.port import Registry
from tests.adapters.registries import digest, publish


def test_versions_count_from_one_and_the_bare_name_is_the_newest_activated(registry: Registry) -> None:
    assert publish(registry, "spam", "a") == Published("spam", 1, digest("a"), created=True, live=1)
    assert publish(registry, "spam", "b") == Published("spam", 2, digest("b"), created=True, live=2)
    assert publish(registry, "spam", "c", activate=False).live == 2
    assert registry.resolve("spam") == Resolution("spam", 2, digest("b"))


def test_every_form_of_reference_resolves_to_the_version_it_means(registry: Registry) -> None:
    publish(registry, "spam", "a")
    publish(registry, "spam", "b")
    registry.set_alias("spam", "prod", 1)
    one = Resolution("spam", 1, digest("a"))
    for reference in ("spam@1", "spam@prod", f"spam@{digest('a')[:19]}", f"spam@{digest('a')}"):
        assert registry.resolve(reference) == registry.resolve(Reference.parse(reference)) == one
    assert registry.resolve("spam@live") == registry.resolve("spam") == Resolution("spam", 2, digest("b"))


def test_the_same_content_keeps_its_number_and_live_moves_only_if_asked(registry: Registry) -> None:
    publish(registry, "spam", "a")
    publish(registry, "spam", "b")
    same = publish(registry, "spam", "a", activate=False)
    assert (same.version, same.created, same.live) == (1, False, 2)
    same = publish(registry, "spam", "a")
    assert (same.version, same.created, same.live) == (1, False, 1)
    assert registry.rollback("spam").version == 2


def test_the_same_content_under_two_names_is_two_adapters(registry: Registry) -> None:
    publish(registry, "spam", "a")
    assert publish(registry, "ham", "a").created
    registry.delete_adapter("spam")
    assert registry.digest_in_use(digest("a"))
    registry.delete_version("ham", 1, force=True)
    assert not registry.digest_in_use(digest("a"))


def test_a_first_version_that_is_not_activated_leaves_the_bare_name_without_a_version(
    registry: Registry,
) -> None:
    assert publish(registry, "spam", "a", activate=False).live is None
    with pytest.raises(errors.NoLiveVersion, match="spam") as missing:
        registry.resolve("spam")
    assert missing.value.code == "no_live_version"
    assert registry.resolve("spam@1").version == 1


def test_numbers_are_never_used_again(registry: Registry) -> None:
    for content in "abc":
        publish(registry, "spam", content)
    registry.delete_version("spam", 3, force=True)
    assert publish(registry, "spam", "c").version == 4
    registry.delete_adapter("spam")
    assert publish(registry, "spam", "c").version == 5
    assert registry.show("spam").versions[0].version == 5


def test_rolling_back_walks_through_where_live_was(registry: Registry) -> None:
    for content in "abc":
        publish(registry, "spam", content)
    assert registry.rollback("spam") == AliasPointer("spam", "live", 2, digest("b"))
    assert registry.rollback("spam").version == 1
    with pytest.raises(errors.NoPreviousVersion):
        registry.rollback("spam")
    assert registry.resolve("spam").version == 1
    assert publish(registry, "spam", "d").version == 4
    assert registry.rollback("spam").version == 1


def test_rolling_back_undoes_a_move_of_live_by_hand(registry: Registry) -> None:
    for content in "abc":
        publish(registry, "spam", content)
    registry.set_alias("spam", "live", 1)
    registry.set_alias("spam", "live", 1)
    assert registry.rollback("spam").version == 3
    assert registry.rollback("spam").version == 2


def test_rolling_back_skips_deleted_versions(registry: Registry) -> None:
    for content in "abc":
        publish(registry, "spam", content)
    registry.set_alias("spam", "live", 2)
    registry.set_alias("spam", "live", 3)
    registry.delete_version("spam", 2)
    assert registry.rollback("spam").version == 1


def test_rolling_back_after_live_was_deleted_restores_what_was_before_it(registry: Registry) -> None:
    publish(registry, "spam", "a")
    publish(registry, "spam", "b")
    registry.delete_version("spam", 2, force=True)
    with pytest.raises(errors.NoLiveVersion):
        registry.resolve("spam")
    assert registry.rollback("spam").version == 1


def test_a_version_in_use_goes_only_by_force_and_its_aliases_with_it(registry: Registry) -> None:
    publish(registry, "spam", "a")
    registry.set_alias("spam", "prod", 1)
    publish(registry, "spam", "b")
    with pytest.raises(errors.VersionInUse, match="prod"):
        registry.delete_version("spam", 1)
    assert registry.resolve("spam@prod").version == 1
    assert registry.delete_version("spam", 1, force=True) == digest("a")
    with pytest.raises(errors.UnknownAlias):
        registry.resolve("spam@prod")
    assert registry.resolve("spam").version == 2


def test_a_deleted_adapter_is_unknown_and_tells_the_digests_it_had(registry: Registry) -> None:
    publish(registry, "spam", "a")
    publish(registry, "spam", "b")
    assert registry.delete_adapter("spam") == [digest("a"), digest("b")]
    for use in (registry.resolve, registry.show, registry.rollback, registry.delete_adapter):
        with pytest.raises(errors.UnknownAdapter):
            use("spam")
    assert (registry.count(), registry.list(10).adapters) == (0, [])

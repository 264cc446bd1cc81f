"""What the registry lists, details, records and refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rootstock.adapters import errors
from rootstock.adapters.registry import NewVersion
from rootstock.adapters.registry.port import Registry
from tests.adapters.registries import digest, publish


def test_an_unknown_adapter_is_told_with_up_to_three_close_names(registry: Registry) -> None:
    for name in ("sentiment", "sentiments", "sentient", "sentimental", "weather"):
        publish(registry, name, "a")
    with pytest.raises(errors.UnknownAdapter, match="did you mean sentiment, ") as unknown:
        registry.resolve("sentimant")
    told = str(unknown.value).partition("did you mean ")[2].rstrip("?").replace(" or ", ", ").split(", ")
    assert len(told) == 3
    assert "weather" not in told


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("spam@2", errors.UnknownVersion),
        ("spam@999999999", errors.UnknownVersion),
        ("spam@prod", errors.UnknownAlias),
        ("spam@sha256:" + "0" * 12, errors.UnknownVersion),
        ("ham@sha256:" + "0" * 12, errors.UnknownAdapter),
        ("ham", errors.UnknownAdapter),
        ("ham@1", errors.UnknownAdapter),
        ("foundation", errors.UnknownAdapter),
        ("spam@@", errors.InvalidReference),
        (None, errors.InvalidReference),
    ],
)
def test_what_cannot_be_resolved_says_what_is_missing(
    registry: Registry, reference: str, error: type[errors.AdapterError]
) -> None:
    publish(registry, "spam", "a")
    with pytest.raises(error):
        registry.resolve(reference)


def test_a_prefix_of_two_digests_is_ambiguous_until_it_is_longer(registry: Registry) -> None:
    one, two = "sha256:" + "0" * 63 + "1", "sha256:" + "0" * 63 + "2"
    for number in (one, two):
        registry.publish("spam", number, task="fill-mask", verification={}, size=1)
    with pytest.raises(errors.AmbiguousDigest, match="1 or 2"):
        registry.resolve("spam@sha256:" + "0" * 12)
    assert registry.resolve(f"spam@{two}").version == 2


@pytest.mark.parametrize("number", [0, -1, 2, 10**30])
def test_a_number_that_is_no_version_is_unknown_and_never_a_crash(registry: Registry, number: int) -> None:
    publish(registry, "spam", "a")
    for use in (registry.version, registry.delete_version, lambda name, n: registry.set_alias(name, "prod", n)):
        with pytest.raises(errors.UnknownVersion):
            use("spam", number)


@pytest.mark.parametrize("name", ["\ud800", "a\0", "NO", "", "a" * 100_000, "'; DROP TABLE adapters; --"])
def test_a_text_that_is_no_name_is_an_unknown_adapter_and_never_a_crash(registry: Registry, name: str) -> None:
    for use in (
        registry.show,
        registry.rollback,
        registry.delete_adapter,
        lambda text: registry.version(text, 1),
    ):
        with pytest.raises(errors.UnknownAdapter):
            use(name)
    assert registry.events(name) == []
    with pytest.raises(errors.InvalidName):
        publish(registry, name, "a")
    with pytest.raises(errors.InvalidName):
        registry.list(10, after=name)


def test_reserved_names_bad_aliases_and_bad_digests_change_nothing(registry: Registry) -> None:
    publish(registry, "spam", "a")
    with pytest.raises(errors.InvalidName):
        publish(registry, "foundation", "a")
    with pytest.raises(errors.InvalidName):
        registry.set_alias("spam", "12", 1)
    with pytest.raises(errors.InvalidDigest):
        registry.publish("spam", "sha256:12", task="t", verification={}, size=1)
    assert registry.count() == 1
    assert len(registry.events()) == 2


def test_pages_follow_each_other_in_order_of_name(registry: Registry) -> None:
    for number in (3, 1, 5, 2, 4):
        publish(registry, f"a{number}", number)
    first = registry.list(2)
    second = registry.list(2, first.next)
    third = registry.list(2, second.next)
    names = [[adapter.name for adapter in page.adapters] for page in (first, second, third)]
    assert names == [["a1", "a2"], ["a3", "a4"], ["a5"]]
    assert third.next is None
    assert registry.list(5).next is None
    with pytest.raises(ValueError, match="limit"):
        registry.list(0)


def test_a_search_finds_the_names_that_contain_a_text_a_page_at_a_time(registry: Registry) -> None:
    for number, name in enumerate(("spam", "ham", "sp_am", "sp-am", "hamster", "champ")):
        publish(registry, name, number)

    def found(text: str, **page: Any) -> list[str]:
        return [adapter.name for adapter in registry.list(**{"limit": 10, **page}, search=text).adapters]

    assert found("ham") == ["champ", "ham", "hamster"]
    assert found("HAM") == found("ham")
    assert found("ham", limit=2) == ["champ", "ham"]
    assert found("ham", after="ham") == ["hamster"]
    # In SQL both are wildcards.
    assert found("p_a") == ["sp_am"]
    assert found("%") == []
    for text in ("\0", "\ud800", "ß", "a" * 129):
        assert found(text) == []
    assert len(found("")) == 6


def test_pages_of_events_follow_each_other_back_in_time(registry: Registry) -> None:
    for letter in "abc":
        publish(registry, "spam", letter)
        publish(registry, "ham", letter)
    everything, of_spam = registry.events(), registry.events("spam")
    assert (len(everything), len(of_spam)) == (12, 6)
    assert registry.events(limit=5, before=everything[3].id) == everything[4:9]
    assert registry.events("spam", limit=2, before=of_spam[1].id) == of_spam[2:4]
    assert registry.events(before=everything[-1].id) == []


def test_a_summary_tells_live_versions_aliases_and_the_live_version_s_task(registry: Registry) -> None:
    registry.publish("spam", digest("a"), task="text-classification", verification={}, size=1)
    registry.publish("spam", digest("b"), task="fill-mask", verification={}, size=1, activate=False)
    registry.set_alias("spam", "next", 2)
    [summary] = registry.list(10).adapters
    assert (summary.name, summary.live, summary.versions) == ("spam", 1, [1, 2])
    assert (summary.task, summary.aliases) == ("text-classification", {"live": 1, "next": 2})
    registry.delete_version("spam", 1, force=True)
    [summary] = registry.list(10).adapters
    assert (summary.live, summary.task) == (None, "fill-mask")
    registry.delete_version("spam", 2, force=True)
    assert registry.show("spam").task is None


def test_details_give_back_what_was_recorded(registry: Registry) -> None:
    verification = {"golden": "passed", "largest_difference": 1.5e-5, "runner": "ort", "ümlaut": [None, True]}
    registry.publish("spam", digest("a"), task="fill-mask", verification=verification, size=5_000_000_000)
    detail = registry.version("spam", 1)
    assert (detail.digest, detail.task, detail.status) == (digest("a"), "fill-mask", "ready")
    assert (detail.size, detail.verification) == (5_000_000_000, verification)
    assert detail.created_at.tzinfo is UTC
    assert abs(detail.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert registry.show("spam").versions == [detail]
    assert registry.show("spam").aliases == {"live": 1}


def test_every_change_leaves_an_event_and_a_failed_one_leaves_none(registry: Registry) -> None:
    publish(registry, "spam", "a")
    publish(registry, "spam", "b")
    publish(registry, "spam", "b")
    registry.set_alias("spam", "prod", 2)
    registry.rollback("spam")
    with pytest.raises(errors.VersionInUse):
        registry.delete_version("spam", 2)
    registry.delete_version("spam", 2, force=True)
    registry.delete_adapter("spam")
    publish(registry, "ham", "a", activate=False)
    events = [(event.what, event.version, event.alias) for event in registry.events("spam")]
    assert events == [
        ("adapter_deleted", None, None),
        ("version_deleted", 2, None),
        ("rolled_back", 1, "live"),
        ("alias_set", 2, "prod"),
        ("alias_set", 2, "live"),
        ("published", 2, None),
        ("alias_set", 1, "live"),
        ("published", 1, None),
    ]
    assert registry.events("spam", limit=2)[1].detail == {"digest": digest("b"), "aliases": ["prod"]}
    assert [event.name for event in registry.events(limit=2)] == ["ham", "spam"]


def test_publishing_many_records_what_publishing_each_records(registry: Registry) -> None:
    publish(registry, "old", "a")
    publish(registry, "gone", "a")
    began = {name: registry.show(name).created_at for name in ("old", "gone")}
    registry.delete_adapter("gone")
    verification = {"golden": "none", "ümlaut": [None]}
    many = [NewVersion(name, digest(name), "fill-mask", verification, 7) for name in ("old", "gone", "new")]
    done = registry.publish_all(many)
    for name in ("old", "gone", "new"):
        publish(registry, f"{name}-alone", "a")
        if name == "gone":
            registry.delete_adapter("gone-alone")
        if name == "new":
            registry.delete_version("new-alone", 1, force=True)
        alone = registry.publish(
            f"{name}-alone", digest(name), task="fill-mask", verification=verification, size=7
        )
        many_detail, alone_detail = (registry.show(n).versions[-1] for n in (name, alone.name))
        moments = {"name": "", "version": 0, "created_at": many_detail.created_at}
        assert replace(many_detail, **moments) == replace(alone_detail, **moments)
        told = [[(e.what, e.alias, sorted(e.detail)) for e in registry.events(n, 2)] for n in (name, alone.name)]
        assert told[0] == told[1]
    assert [(p.version, p.live, p.created) for p in done] == [(2, 2, True), (2, 2, True), (1, 1, True)]
    assert registry.show("old").created_at == began["old"]
    assert registry.show("gone").created_at > began["gone"]
    assert registry.rollback("old").version == 1
    again = registry.publish_all(many)
    assert [(p.version, p.live, p.created) for p in again] == [(2, 1, False), (2, 2, False), (1, 1, False)]


def test_publishing_many_of_which_one_has_no_name_publishes_none(registry: Registry) -> None:
    many = [NewVersion(name, digest("a"), "t", {}, 1) for name in ("spam", "Not A Name")]
    with pytest.raises(errors.InvalidName):
        registry.publish_all(many)
    assert registry.count() == 0

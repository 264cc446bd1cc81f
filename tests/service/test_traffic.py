"""Who has a label of its own: the adapters with the most requests, and never more than so many."""

from __future__ import annotations

from rootstock.service.telemetry.traffic import OTHER, TrafficRanking
from tests.service.engine.fakes import Clock


def traffic(most: int = 2) -> tuple[TrafficRanking, Clock]:
    clock = Clock()
    return TrafficRanking(most, clock), clock


def test_the_first_to_come_have_labels_and_the_rest_share_one() -> None:
    counted, _ = traffic()
    assert [counted.label(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]


def test_an_adapter_with_more_traffic_takes_the_label_of_the_one_with_the_least() -> None:
    counted, clock = traffic()
    for name in ["a"] * 10 + ["b"] * 3 + ["c"] * 20:
        counted.label(name)
    assert counted.rank() == [], "not before a period is over"
    clock.now += 60
    assert counted.rank() == ["b"]
    assert [counted.label(name) for name in "abc"] == ["a", OTHER, "c"]


def test_adapters_with_about_the_same_traffic_keep_what_they_have() -> None:
    counted, clock = traffic()
    for _ in range(50):
        for name in ["a"] * 10 + ["b"] * 10 + ["c"] * 19:
            counted.label(name)
        clock.now += 60
        assert counted.rank() == []


def test_traffic_of_long_ago_does_not_count() -> None:
    counted, clock = traffic(1)
    for _ in range(1000):
        counted.label("was")
    clock.now += 3600
    assert counted.rank() == []
    for _ in range(5):
        counted.label("is")
    clock.now += 60
    assert counted.rank() == ["was"]


def test_a_name_that_is_forgotten_leaves_its_label_to_the_next() -> None:
    counted, _ = traffic(1)
    counted.label("a")
    assert not counted.forget("b")
    assert counted.forget("a")
    assert counted.label("b") == "b"


def test_an_adapter_called_other_is_one_of_the_others() -> None:
    counted, clock = traffic(1)
    assert [counted.label(OTHER) for _ in range(100)] == [OTHER] * 100
    assert counted.label("a") == "a"
    clock.now += 60
    assert counted.rank() == []
    assert not counted.forget(OTHER)

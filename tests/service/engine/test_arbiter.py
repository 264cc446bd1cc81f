"""Several engines share the cores: one computes at a time, and none waits for more than its share."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.arbiter import Arbiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def waits(arbiter: Arbiter, count: int) -> None:
    """Return once so many engines wait for their turns."""
    with arbiter._changed:
        while len(arbiter._waiting) < count:
            arbiter._changed.wait(0.01)


def ask(arbiter: Arbiter, engine: str, order: list[str]) -> threading.Thread:
    def run() -> None:
        with arbiter.turn(engine):
            order.append(engine)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_the_engine_that_has_had_the_least_time_goes_first() -> None:
    clock, order = Clock(), list[str]()
    arbiter = Arbiter(clock)
    with arbiter.turn("long"):
        clock.now += 5.0
    with arbiter.turn("short"):
        clock.now += 1.0
    with arbiter.turn("holder"):
        threads = []
        for count, engine in enumerate(("long", "short", "new"), 1):
            threads.append(ask(arbiter, engine, order))
            waits(arbiter, count)
    for thread in threads:
        thread.join()
    assert order == ["new", "short", "long"]


def test_an_engine_that_pauses_saves_up_no_time() -> None:
    clock, order = Clock(), list[str]()
    arbiter = Arbiter(clock)
    for _ in range(9):
        with arbiter.turn("steady"):
            clock.now += 1.0
    with arbiter.turn("paused"):
        clock.now += 3.0
    with arbiter.turn("holder"):
        threads = []
        for count, engine in enumerate(("paused", "steady"), 1):
            threads.append(ask(arbiter, engine, order))
            waits(arbiter, count)
    for thread in threads:
        thread.join()
    assert order == ["steady", "paused"], "it started at 8, where the last turn began"


def test_a_turn_ends_when_its_body_fails() -> None:
    arbiter = Arbiter()
    with pytest.raises(RuntimeError), arbiter.turn("a"):
        raise RuntimeError
    with arbiter.turn("b"):
        pass


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_one_engine_computes_at_a_time_and_each_gets_all_its_turns(batches: list[str]) -> None:
    arbiter, running = Arbiter(), threading.Lock()
    done: Counter[str] = Counter()
    together: list[str] = []

    def work(engine: str, count: int) -> None:
        for _ in range(count):
            with arbiter.turn(engine):
                if not running.acquire(blocking=False):
                    together.append(engine)
                    return
                done[engine] += 1
                running.release()

    threads = [threading.Thread(target=work, args=item) for item in Counter(batches).items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == []
    assert done == Counter(batches)


def take(arbiter: Arbiter, clock: Clock, engine: str, seconds: float, order: list[str]) -> None:
    with arbiter.turn(engine):
        order.append(engine)
        clock.now += seconds


def behind(arbiter: Arbiter, clock: Clock, pause: float, order: list[str]) -> threading.Thread:
    """Return a thread of long batches that waits, after a turn of short batches whose engine pauses this long."""
    take(arbiter, clock, "long", 0.2, [])
    take(arbiter, clock, "short", 0.02, [])
    clock.now += pause
    with arbiter.turn("short"):
        thread = threading.Thread(target=take, args=(arbiter, clock, "long", 0.2, order))
        thread.start()
        waits(arbiter, 1)
        clock.now += 0.02
    return thread


def test_the_cores_wait_for_an_engine_that_is_behind_and_returns_at_once() -> None:
    clock, order = Clock(), list[str]()
    arbiter = Arbiter(clock)
    long = behind(arbiter, clock, 0.005, order)
    # It has had 0.04 of the 0.2 seconds of the long engine, which waits all the while.
    for _ in range(8):
        # The long engine has time to begin if the cores do not wait.
        long.join(0.02)
        clock.now += 0.005
        take(arbiter, clock, "short", 0.02, order)
    long.join(60)
    assert order == ["short"] * 8 + ["long"]


def test_the_cores_do_not_wait_for_an_engine_that_pauses_longer() -> None:
    clock, order = Clock(), list[str]()
    arbiter = Arbiter(clock)
    behind(arbiter, clock, 0.5, order).join(60)
    assert order == ["long"]


def test_the_cores_wait_no_longer_than_twice_the_usual_pause() -> None:
    clock, order = Clock(), list[str]()
    arbiter = Arbiter(clock)
    long = behind(arbiter, clock, 0.005, order)
    clock.now += 0.011
    long.join(60)
    assert order == ["long"]

"""Small work passes large work, ordinary work keeps its order, and everything has its turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.engine.core.turns.finish_time_queue import FinishTimeQueue


def test_work_that_costs_little_passes_work_that_costs_much_and_came_before() -> None:
    queue: FinishTimeQueue[str] = FinishTimeQueue(least=10)
    for i in range(20):
        queue.put(f"large {i}", 1000)
    assert queue.get() == ("large 0", 1000)
    queue.put("small", 3)
    assert queue.get() == ("small", 3)


@given(st.lists(st.integers(0, 10), max_size=30))
def test_work_of_at_most_the_least_cost_leaves_in_the_order_of_its_arrival(costs: list[int]) -> None:
    queue: FinishTimeQueue[int] = FinishTimeQueue(least=10)
    taken = []
    for i, cost in enumerate(costs):
        queue.put(i, cost)
        if i % 3 == 2:
            taken.append(queue.get()[0])
    while queue:
        taken.append(queue.get()[0])
    assert taken == list(range(len(costs)))


@given(st.integers(1, 1000), st.integers(1, 8))
def test_large_work_has_its_turn_however_much_small_work_keeps_coming(cost: int, waiting: int) -> None:
    queue: FinishTimeQueue[str] = FinishTimeQueue(least=1)
    queue.put("large", cost)
    for _ in range(waiting):
        queue.put("small", 1)
    taken = 0
    while queue.get()[0] == "small":
        queue.put("small", 1)
        taken += 1
        assert taken <= (cost + 1) * (waiting + 1)


def test_large_works_share_alike() -> None:
    queue: FinishTimeQueue[str] = FinishTimeQueue(least=1)
    for name in "abc":
        queue.put(name, 100)
    taken = []
    for _ in range(9):
        name, cost = queue.get()
        taken.append(name)
        queue.put(name, cost)
    assert taken == list("abc" * 3)

"""The queue loses nothing, keeps order, starves nobody and refuses what does not fit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.batch import Request, Row
from service.engine.errors import Overloaded, TooLarge
from service.engine.queue import VERIFY_AFTER, BatchLimits, Capacity, Queue
from service.engine.tokenizer import Encoded
from tests.service.engine.fakes import make_adapter

ROOM = Capacity(100_000, 10_000_000)
LIMITS = BatchLimits(rows=6, tokens=1024, padding=0.25)
# Lengths far apart and close together, so that padding decides often.
LENGTHS = st.one_of(st.integers(3, 512), st.sampled_from([16, 17, 18, 20]))


def make_row(digest: str, length: int = 16, verifying: bool = False, gone: bool = False) -> Row:
    request = Request(make_adapter(digest), [""], {}, deadline=0.0, admitted=0.0, verifying=verifying, gone=gone)
    return Row(request, 0, Encoded([0] * length, [0] * length, None, "", 0))  # type: ignore[arg-type]


def is_gone(row: Row) -> bool:
    return row.request.gone


def always(row: Row) -> bool:
    return True


def check_counters(queue: Queue) -> None:
    rows = list(queue)
    assert queue.items == len(rows)
    assert queue.tokens == sum(r.length for r in rows)


def check_limits(batch: list[Row], limits: BatchLimits) -> None:
    assert len(batch) <= limits.rows
    if len(batch) > 1:
        padded = len(batch) * max(r.length for r in batch)
        assert padded <= limits.tokens
        assert padded - sum(r.length for r in batch) <= limits.padding * padded


@dataclass
class Put:
    rows: list[tuple[str, int, bool]]


@dataclass
class Leave:
    picks: list[int]
    purge: bool


@dataclass
class Take:
    refused: set[str]
    full_after: int
    seed: list[bool] = field(default_factory=list)


DIGESTS = st.one_of(st.sampled_from("ABCDEFGH"), st.just("A"))
PUTS = st.builds(
    Put,
    st.one_of(
        st.lists(st.tuples(DIGESTS, LENGTHS, st.integers(0, 9).map(lambda n: n == 0)), max_size=12),
        st.lists(st.tuples(st.just("A"), LENGTHS, st.just(False)), min_size=20, max_size=40),
    ),
)
LEAVES = st.builds(Leave, st.lists(st.integers(0, 200), max_size=10), st.booleans())
TAKES = st.builds(Take, st.one_of(st.just(set()), st.sets(st.sampled_from("ABCDEFGH"))), st.integers(1, 8))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(PUTS, LEAVES, TAKES), max_size=30))
def test_no_row_is_lost_doubled_or_overtaken_and_every_batch_keeps_its_limits(
    steps: list[Put | Leave | Take],
) -> None:
    queue = Queue(ROOM, LIMITS)
    lines: dict[tuple[str, bool], deque[Row]] = {}
    put: list[Row] = []
    taken: list[Row] = []

    def take(refused: set[str], most: int) -> list[Row]:
        placed: set[str] = set()

        def place(row: Row) -> bool:
            assert not is_gone(row), "a row that nobody waits for is not placed"
            if row.digest in refused or (row.digest not in placed and len(placed) >= most):
                return False
            placed.add(row.digest)
            return True

        batch = queue.take(place, is_gone)
        assert {r.digest for r in batch} == placed, "who is placed is taken"
        check_limits(batch, LIMITS)
        check_counters(queue)
        assert len({r.request.verifying for r in batch}) <= 1, "verification runs by itself"
        for row in batch:
            line = lines[row.digest, row.request.verifying]
            while is_gone(line[0]):
                line.popleft()
            assert line.popleft() is row, "first come, first served within an adapter"
        taken.extend(batch)
        return batch

    for step in steps:
        if isinstance(step, Put):
            rows = [make_row(*row) for row in step.rows]
            queue.put(rows)
            put.extend(rows)
            for row in rows:
                lines.setdefault((row.digest, row.request.verifying), deque()).append(row)
        elif isinstance(step, Leave):
            waiting = list(queue)
            for pick in step.picks:
                if pick < len(waiting):
                    waiting[pick].request.gone = True
            if step.purge:
                queue.purge(is_gone)
                assert not any(is_gone(row) for row in queue)
        else:
            take(step.refused, step.full_after)
        check_counters(queue)
    while take(set(), 8):
        pass
    assert len(queue) == queue.tokens == 0
    assert len({id(r) for r in taken}) == len(taken)
    assert {id(r) for r in taken} | {id(r) for r in put if is_gone(r)} == {id(r) for r in put}


@settings(max_examples=100, deadline=None)
@given(
    flood=st.lists(st.lists(st.tuples(st.sampled_from("ABCDEFGHIJKL"), LENGTHS), max_size=12), max_size=8),
    ahead=st.integers(0, 4),
    length=LENGTHS,
    refused=st.sets(st.sampled_from("ABCDEFGHIJKL")),
)
def test_a_row_waits_for_at_most_its_place_in_line_times_the_adapters_that_wait(
    flood: list[list[tuple[str, int]]], ahead: int, length: int, refused: set[str]
) -> None:
    """The bound, from the rule: every batch serves the adapter at the front and sends it to the back; newcomers
    join at the back. So an adapter is served once in as many batches as adapters wait, and row k of its line
    within (k + 1) times as many, whatever the others send and however short their rows are.
    """
    queue = Queue(ROOM, LIMITS)
    flood = flood or [[]]
    queue.put([make_row(d, n) for d, n in flood[0]])
    line = [make_row("me", length) for _ in range(ahead + 1)]
    queue.put(line)
    waited, most = 0, 0
    while True:
        most = max(most, len({r.digest for r in queue}))
        batch = queue.take(lambda row: row.digest not in refused, is_gone)
        waited += 1
        if line[-1] in batch:
            break
        assert waited < (ahead + 1) * most, f"{waited} batches went by, {most} adapters waited at most"
        queue.put([make_row(d, n) for d, n in flood[waited % len(flood)]])


def test_a_row_that_pads_badly_is_not_passed_over_for_ever() -> None:
    queue = Queue(ROOM, LIMITS)
    queue.put([make_row("short", 4) for _ in range(50)] + [make_row("long", 512)])
    batches = [queue.take(always, is_gone) for _ in range(2)]
    assert {r.digest for r in batches[1]} == {"long"}


def test_adapters_share_a_batch_in_turn() -> None:
    queue = Queue(ROOM, LIMITS)
    queue.put([make_row("A") for _ in range(20)] + [make_row("B") for _ in range(2)] + [make_row("C")])
    assert [r.digest for r in queue.take(always, is_gone)] == list("ABCABA")


def test_a_row_longer_than_a_batch_runs_alone() -> None:
    queue = Queue(ROOM, BatchLimits(rows=4, tokens=64))
    queue.put([make_row("A", 500), make_row("B", 500)])
    assert [r.digest for r in queue.take(always, is_gone)] == ["A"]
    assert [r.digest for r in queue.take(always, is_gone)] == ["B"]


def test_gone_rows_deep_in_a_line_are_no_longer_counted_after_a_purge() -> None:
    queue = Queue(Capacity(items=4, tokens=1000), LIMITS)
    rows = [make_row("A", 10) for _ in range(4)]
    queue.put(rows)
    for row in rows[1:]:
        row.request.gone = True
    queue.purge(is_gone)
    assert (queue.items, queue.tokens) == (1, 10)
    queue.admit(3, 990)
    queue.put([make_row("B", 10)])
    assert [r.digest for r in queue.take(always, is_gone)] == ["A", "B"]


def test_a_full_queue_refuses_in_items_and_in_tokens_and_takes_again_once_there_is_room() -> None:
    queue = Queue(Capacity(items=3, tokens=100), LIMITS)
    queue.admit(3, 100)
    queue.put([make_row("A", 30), make_row("A", 30)])
    queue.admit(1, 40)
    with pytest.raises(Overloaded, match=r"2 inputs wait and 2 more exceed the queue's 3") as items:
        queue.admit(2, 10)
    assert items.value.retry_after >= 1
    with pytest.raises(Overloaded, match=r"60 tokens wait and 41 more exceed the queue's 100"):
        queue.admit(1, 41)
    queue.take(always, is_gone)
    queue.admit(3, 100)


def test_a_request_that_could_never_fit_is_too_large_however_full_the_queue_is() -> None:
    queue = Queue(Capacity(items=3, tokens=100), LIMITS)
    for _ in range(2):
        with pytest.raises(TooLarge, match="4 inputs in one request"):
            queue.admit(4, 10)
        with pytest.raises(TooLarge, match="101 tokens in one request"):
            queue.admit(3, 101)
        queue.put([make_row("A", 10) for _ in range(queue.capacity.items - queue.items)])


def test_verification_runs_only_when_nothing_else_can() -> None:
    queue = Queue(ROOM, LIMITS)
    queue.put([make_row("V", verifying=True), *[make_row("A") for _ in range(8)]])
    assert [r.digest for r in queue.take(always, is_gone)] == ["A"] * 6
    assert [r.digest for r in queue.take(always, is_gone)] == ["A"] * 2
    assert [r.digest for r in queue.take(always, is_gone)] == ["V"]
    queue.put([make_row("V", verifying=True), make_row("A")])
    assert [r.digest for r in queue.take(lambda r: r.digest != "A", is_gone)] == ["V"]


def test_verification_gets_a_small_share_under_load_that_never_ends() -> None:
    queue = Queue(ROOM, LIMITS)
    queue.put([make_row("V", verifying=True) for _ in range(12)])
    kinds = []
    for _ in range(3 * (VERIFY_AFTER + 1)):
        queue.put([make_row("A") for _ in range(LIMITS.rows)])
        kinds.append({r.digest for r in queue.take(always, is_gone)})
    assert kinds.index({"V"}) == VERIFY_AFTER
    assert kinds.count({"V"}) == 2, "twelve rows are two batches"


def test_verification_whose_rows_are_all_gone_costs_no_batch() -> None:
    queue = Queue(ROOM, LIMITS)
    queue.put([make_row("V", verifying=True, gone=True), make_row("A")])
    for _ in range(VERIFY_AFTER + 2):
        queue.put([make_row("A")])
        assert queue.take(always, is_gone)

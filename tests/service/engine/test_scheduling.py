"""Queue, slots, admission and the batcher's loop together, on a clock that only the runner moves: no threads.

The runner is the fake of fakes.py, whose output is a hash of the adapter and the row's own ids: what a request
must be answered is known from these alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.admission import Admission, Capacity, Ticket
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.core.errors import EngineError, Overloaded, RunnerFault
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.core.work import PRIORITIES, Priority
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.batcher import Batcher
from rootstock.service.engine.encode.modalities.text import TextSample, collate
from rootstock.service.engine.encode.packing import SHARED_ROWS, BatchLimits
from rootstock.service.engine.encode.queue import WINDOW, Queue
from tests.service.engine.fakes import SPEC, Clock, FakeObserver, FakeRunner, make_adapter, raw_output

LIMITS = BatchLimits(rows=4, tokens=256, padding=0.25)
LONGEST = 64
BATCH_SECONDS = 1.0
# An adapter whose outputs are no numbers, and one that no slot takes.
NAN, UNSTAGEABLE = "nan", "unstageable"

adapter = lru_cache(make_adapter)


@dataclass(frozen=True)
class Call:
    """Texts of these lengths under each of these adapters, admitted together."""

    adapters: tuple[str, ...]
    lengths: tuple[int, ...]
    tenant: str = ""
    priority: Priority = "normal"
    seconds: float = 1e6
    verifying: bool = False


padded = partial(collate, pad_id=0)


class World:
    """An engine without threads: `ask` and `cancel` are the event loop's part, `step` is the batcher's."""

    def __init__(
        self,
        slots: int = 6,
        pinned: int = 0,
        capacity: Capacity | None = None,
        observer: FakeObserver | None = None,
        limits: BatchLimits = LIMITS,
    ) -> None:
        self.clock = Clock()
        self.runner = FakeRunner(slots)
        self.runner.fault = self._passes
        self.runner.not_finite.add(NAN)
        self.runner.unstageable.add(UNSTAGEABLE)
        self.slots = Slots(self.runner, foundation_adapter(SPEC))
        self.observer = observer or FakeObserver()
        self.admission = Admission(capacity or Capacity(100_000, 10_000_000))
        self.queue = Queue(limits)
        self.batcher = Batcher(
            self.queue, self.slots, self.runner, padded, self._finish, self.admission, self.observer, self.clock
        )
        self.answers: dict[Request, EngineError | None] = {}
        self.requests: list[Request] = []
        self.left: set[Request] = set()
        self.ran: list[list[Row]] = []
        self._rows: dict[tuple[str, tuple[int, ...]], Row] = {}
        self._waiting: set[Row] = set()
        self._texts = count(1)
        names = frozenset(f"pinned{i}" for i in range(pinned))
        self.slots.pin(names)
        for name in names:
            self.batcher.place(adapter(name))

    def ask(self, call: Call) -> list[Request]:
        """Admit a call; Overloaded if it does not fit."""
        size, tokens = len(call.adapters) * len(call.lengths), len(call.adapters) * sum(call.lengths)
        ticket = self.admission.enter(size, tokens // 4)
        requests = [self._request(call, name, ticket) for name in call.adapters]
        texts = [self._encoded(length) for length in call.lengths]
        rows = []
        for request in requests:
            request.progress.prepare([[text] for text in texts])
            rows += [Row(request, i, text) for i, text in enumerate(texts)]
        try:
            self.batcher.admit(rows)
        except EngineError:
            self.admission.leave(ticket)
            raise
        self._waiting |= set(rows)
        self._rows |= {(row.digest, tuple(row.sample.ids)): row for row in rows}
        self.requests += requests
        return requests

    def leave(self, request: Request) -> None:
        """The client of the call that this request is of has left."""
        for other in self.requests:
            if other.ticket is request.ticket and other not in self.answers:
                self.left.add(other)
                other.progress.leave()
        self.admission.leave(request.ticket)
        self.batcher.leave()

    def step(self) -> bool:
        """One batch, and what must be so after any; False if nothing came of it."""
        before = len(self.answers), len(self.queue)
        late = [r for r in self.requests if r.deadline < self.clock.now and r not in self.answers]
        moved = self.batcher.step()
        # The event loop may notice only now.
        for request in late:
            self.leave(request)
        waiting = [row for row in self._waiting if row.request.ticket.open]
        assert self.admission.waiting() == (len(waiting), sum(row.cost for row in waiting))
        return moved or (len(self.answers), len(self.queue)) != before

    def drain(self) -> None:
        """Run until nothing waits. While rows do, each step computes some, or ends or drops them."""
        self.step()
        while len(self.queue):
            assert self.step(), "rows wait and none of them can run"

    def _request(self, call: Call, name: str, ticket: Ticket) -> Request:
        now = self.clock.now
        return Request(
            adapter(name),
            [],
            {},
            deadline=now + call.seconds,
            arrived=now,
            tenant=call.tenant,
            priority=call.priority,
            verifying=call.verifying,
            ticket=ticket,
        )

    def _encoded(self, length: int) -> TextSample:
        ids = ([next(self._texts)] + [0] * (length - 1))[:length]
        return TextSample(ids, [0] * length, None, "", 0)  # type: ignore[arg-type]

    def _passes(self, digests: set[str]) -> None:
        rows = [self._rows[row] for row in self.runner.batches[-1]]
        assert not any(row.request in self.left for row in rows), "nobody waits for it"
        assert not any(row.request.deadline < self.clock.now for row in rows), "expired is not computed"
        self.ran.append(rows)
        self._waiting -= set(rows)
        self.clock.now += BATCH_SECONDS

    def _finish(self, request: Request, error: EngineError | None) -> None:
        assert request not in self.answers, "ended once"
        self.answers[request] = error
        if not any(r.ticket is request.ticket and r not in self.answers for r in self.requests):
            self.admission.leave(request.ticket)


NAMES = [f"a{i}" for i in range(12)]
LENGTHS = st.lists(st.one_of(st.integers(2, LONGEST), st.sampled_from([8, 9, 10])), min_size=1, max_size=6)
SECONDS = st.one_of(st.just(1e6), st.integers(0, 20).map(float))


def calls(
    adapters: st.SearchStrategy[str],
    tenant: st.SearchStrategy[str],
    lengths: st.SearchStrategy[list[int]] = LENGTHS,
) -> st.SearchStrategy[Call]:
    return st.builds(
        Call,
        adapters.map(lambda name: (name,)),
        lengths.map(tuple),
        tenant,
        st.sampled_from(list(PRIORITIES)),
        SECONDS,
        st.integers(0, 9).map(lambda n: n == 0),
    )


TENANTS = st.sampled_from(["", "x", "y"])
PATTERNS = st.one_of(
    # A, B, A, A, A …
    st.lists(calls(st.sampled_from("abaaa"), st.just("")), max_size=12),
    # One adapter floods.
    st.lists(
        calls(st.just("a0"), st.just(""), st.lists(st.integers(2, 20), min_size=8, max_size=20)), max_size=3
    ),
    # One tenant floods with many adapters.
    st.lists(calls(st.sampled_from(NAMES), st.just("x")), max_size=24),
    # Everything, and what cannot be computed ahead of it.
    st.lists(calls(st.sampled_from([*NAMES, NAN, UNSTAGEABLE]), TENANTS), max_size=12),
    # One text under many adapters.
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=12, unique=True).map(lambda a: [Call(tuple(a), (9,))]),
)


def high(name: str, *lengths: int, verifying: bool = False) -> Call:
    return Call((name,), lengths, priority="high", verifying=verifying)


verification = partial(high, verifying=True)


# Adapters that wait for the slot of verification, and then others that are asked for; the same ones, or none.
@example(
    waves=[
        ([Call(("a0",), (9,))], 0, []),
        ([verification("a0", 2), high("a0", 2), high("a2", 2), high("a1", 2, 2, 2, 2, 2, 5)], 4, []),
        ([verification("a", 2), high("a", *[2] * 5)], 4, []),
        ([Call(("a",), (2, 2, 2, 4)), high("b", 2), high("a", 2, 2, 2, 9)], 1, []),
        ([Call(("a0", "a1", "a2", "a3"), (9,))], 0, []),
    ],
    slots=3,
    pin=False,
)
@example(
    waves=[
        ([verification("a", 2, 2), verification("a", 2, 2, 5)], 0, []),
        ([verification("a0", 21), verification("a1", 2), verification("a0", 2)], 0, []),
        ([verification("a", 2, 2, 2), verification("a", *[2] * 6)], 0, []),
    ],
    slots=3,
    pin=False,
)
@settings(max_examples=80, deadline=None)
@given(
    waves=st.lists(
        st.tuples(PATTERNS, st.integers(0, 4), st.lists(st.integers(0, 200), max_size=6)), min_size=1, max_size=6
    ),
    slots=st.integers(3, 7),
    pin=st.booleans(),
)
def test_what_is_admitted_is_answered_once_with_its_own_outputs_whatever_else_arrives_and_leaves(
    waves: list[tuple[list[Call], int, list[int]]], slots: int, pin: bool
) -> None:
    world = World(slots, pinned=slots - 3 if pin else 0)
    for arriving, steps, leaving in waves:
        for call in arriving:
            world.ask(call)
        for pick in leaving:
            if world.requests:
                world.leave(world.requests[pick % len(world.requests)])
        for _ in range(steps):
            world.step()
    world.drain()

    computed = Counter((row.request, row.index) for rows in world.ran for row in rows)
    assert set(computed.values()) <= {1}, "nothing is computed twice"
    for request in world.requests:
        digest = request.adapter.digest
        error = world.answers.get(request)
        if request in world.left:
            assert request not in world.answers, "nobody reads it"
        elif digest == NAN:
            assert isinstance(error, RunnerFault)
            assert "inputs[0] is not finite" in str(error) or len(request.progress.outputs) > 1
        elif digest == UNSTAGEABLE:
            assert isinstance(error, RunnerFault)
            assert "could not be loaded" in str(error)
            assert not computed.keys() & {(request, i) for i in range(len(request.progress.outputs))}
        else:
            assert request in world.answers, "nothing admitted is lost"
            assert error is None
            for output, (encoded,) in zip(request.progress.outputs, request.progress.samples, strict=True):
                np.testing.assert_array_equal(output, raw_output(digest, list(encoded.ids)))
    for stats in world.observer.batches:
        assert stats.rows <= SHARED_ROWS * LIMITS.rows
        assert stats.padded <= LIMITS.tokens
        assert stats.padded - stats.tokens <= LIMITS.padding * stats.padded
    assert world.admission.waiting() == (0, 0)
    if pin:
        assert world.slots.pinned <= world.slots.resident(), "what is pinned was not evicted"


# Two tenants keep the only slot for one adapter.
@example(flood=[("a0", [2, 2, 2, 2], ""), ("a0", [2, 2], "x")], own=[2], priority="high", slots=3, pin=False)
@settings(max_examples=40, deadline=None)
@given(
    flood=st.lists(st.tuples(st.sampled_from(NAMES), LENGTHS, TENANTS), min_size=1, max_size=8),
    own=LENGTHS,
    priority=st.sampled_from(list(PRIORITIES)),
    slots=st.integers(3, 5),
    pin=st.booleans(),
)
def test_with_more_adapters_than_slots_a_row_waits_for_a_bounded_share_of_the_others_all_the_same(
    flood: list[tuple[str, list[int], str]], own: list[int], priority: Priority, slots: int, pin: bool
) -> None:
    """The queue's bound, and the W that an adapter may have to make up for after it got no slot."""
    world = World(slots, pinned=slots - 3 if pin else 0)
    window = WINDOW * LIMITS.tokens * PRIORITIES["normal"]
    bound = 3 * window + 3 * LONGEST * PRIORITIES["low"]
    for name, lengths, tenant in flood * 3:
        world.ask(Call((name,), tuple(lengths), tenant))
    world.step()
    (mine,) = world.ask(Call(("me",), tuple(own), "x", priority))
    ran: Counter[object] = Counter()
    for wave in count():
        before = len(world.ran)
        assert world.step()
        batch = world.ran[-1] if len(world.ran) > before else []
        for row in batch:
            if row.request.tenant == "x":
                ran[row.digest] += row.cost * PRIORITIES[row.request.priority]
        assert max(ran.values(), default=0) <= bound
        if any(row.request is mine for row in batch):
            ran.clear()
        if mine in world.answers:
            break
        for name, lengths, tenant in flood[wave % len(flood) :][:2]:
            world.ask(Call((name,), tuple(lengths), tenant))


def test_rows_that_were_left_behind_others_of_their_line_are_dropped_at_once() -> None:
    world = World()
    world.ask(Call(("a",), (8,) * 40))
    (left,) = world.ask(Call(("a",), (8,) * 30))
    world.leave(left)
    world.step()
    assert len(world.queue) == 40 - len(world.ran[0])


def test_inputs_without_tokens_are_answered_and_count_as_one_token() -> None:
    world = World()
    (empty,) = world.ask(Call(("a",), (0, 0)))
    assert world.admission.waiting() == (2, 2)
    world.drain()
    assert world.answers[empty] is None
    (among,) = world.ask(Call(("a",), (0, 3)))
    world.drain()
    assert world.answers[among] is None


def test_a_request_that_expires_while_others_run_is_never_computed() -> None:
    world = World()
    world.ask(Call(("a",), (8,) * 40))
    (late,) = world.ask(Call(("b",), (60,) * 30, priority="low", seconds=3.5))
    world.drain()
    assert late in world.left
    assert late not in world.answers
    assert {row.request for rows in world.ran[4:] for row in rows} <= {world.requests[0]}


@pytest.mark.parametrize("poison", [NAN, UNSTAGEABLE])
def test_a_poison_item_at_the_head_fails_alone(poison: str) -> None:
    world = World()
    (bad,) = world.ask(Call((poison,), (8, 8)))
    (good,) = world.ask(Call(("good",), (8, 8)))
    world.step()
    assert isinstance(world.answers[bad], RunnerFault)
    assert world.answers[good] is None
    assert len(world.ran) == 1


def test_an_input_that_cannot_be_padded_fails_its_batch_alone() -> None:
    world = World(slots=3)
    (bad,) = world.ask(Call(("bad",), (8,)))
    (row,) = world.batcher._incoming
    row.sample.type_ids.append(0)  # type: ignore[attr-defined]
    (good,) = world.ask(Call(("good",), (8,)))
    world.drain()
    assert isinstance(world.answers[bad], RunnerFault)
    assert world.answers[good] is None
    assert world.slots.lease(adapter("third")) is not None, "its slot was given back"


def test_a_fan_out_of_twenty_adapters_on_one_text_runs_in_one_batch() -> None:
    world = World(slots=24, limits=BatchLimits())
    world.ask(Call(tuple(f"f{i}" for i in range(20)), (256,)))
    world.drain()
    assert [len(rows) for rows in world.ran] == [20]
    assert [(s.tokens, s.padded, s.adapters) for s in world.observer.batches] == [(256, 256, 20)]


def test_the_waits_of_requests_are_told_by_priority_and_not_those_of_verification() -> None:
    world = World()
    world.ask(Call(("a",), (8,) * 8, priority="high"))
    world.ask(Call(("b",), (8,), priority="low"))
    world.ask(Call(("v",), (8,), verifying=True))
    world.drain()
    assert [list(s.waits) for s in world.observer.batches] == [[("high", 0.0), ("low", 0.0)], [], [], []]
    world.clock.now += 5
    world.ask(Call(("a",), (8,)))
    world.clock.now += 2
    world.drain()
    assert list(world.observer.batches[-1].waits) == [("normal", 2.0)]


def test_retry_after_follows_the_rate_at_which_batches_run() -> None:
    world = World(capacity=Capacity(items=40, tokens=10_000))
    world.ask(Call(("a",), (50,) * 40))
    with pytest.raises(Overloaded) as refused:
        world.ask(Call(("b",), (2,)))
    assert refused.value.retry_after == 1, "nothing has run yet"
    world.step()
    assert [len(rows) for rows in world.ran] == [4]
    world.ask(Call(("a",), (50,) * 4))
    with pytest.raises(Overloaded) as refused:
        world.ask(Call(("b",), (2,)))
    assert refused.value.retry_after == 10, "forty rows at four a second"

"""Slots: who holds one keeps it, who used one last keeps it longest, and a load that fails changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.core.slots import Slots
from tests.service.engine.fakes import SPEC, FakeRunner, make_adapter

ADAPTERS = [make_adapter(f"sha256:{i}") for i in range(6)]
FOUNDATION = foundation_adapter(SPEC)


class SlotsMachine(RuleBasedStateMachine):
    """Against a plain model: `recent` holds the resident digests, least recently used first."""

    @initialize(slots=st.integers(3, 6))
    def start(self, slots: int) -> None:
        self.runner = FakeRunner(slots)
        self.slots = Slots(self.runner, FOUNDATION)
        self.serving = slots - 2
        self.recent: list[str] = []
        self.held: dict[str, list[int]] = {}
        self.verifying: list[Adapter] = []
        self.pinned: frozenset[str] = frozenset()

    def evictable(self) -> list[str]:
        return [d for d in self.recent if not self.leases(d) and d not in self.pinned]

    def leases(self, digest: str) -> int:
        return len(self.held.get(digest, []))

    @rule(adapter=st.sampled_from(ADAPTERS))
    def lease(self, adapter: Adapter) -> None:
        digest = adapter.digest
        loads = self.runner.staged[digest]
        slot = self.slots.lease(adapter)
        if digest in self.recent:
            assert self.runner.staged[digest] == loads, "what is resident is not staged again"
        elif len(self.recent) == self.serving:
            evictable = self.evictable()
            if not evictable:
                assert slot is None, "all serving slots are leased or pinned"
                assert any(self.held.values()), "pinned adapters leave the others a slot"
                assert self.runner.staged[digest] == loads, "nothing is staged where nothing can be placed"
                return
            self.recent.remove(evictable[0])
            assert evictable[0] not in self.slots.resident(), "the least recently used one leaves"
        assert slot is not None, "a slot is free or can be freed"
        assert 0 < slot < self.runner.slots - 1
        assert self.runner.placed[slot] is adapter
        assert all(s == slot for s in self.held.get(digest, []))
        self.held.setdefault(digest, []).append(slot)
        self.recent = [d for d in self.recent if d != digest] + [digest]

    @rule(adapters=st.lists(st.sampled_from(ADAPTERS), max_size=6))
    def lease_and_release_in_turn(self, adapters: list[Adapter]) -> None:
        for adapter in adapters:
            before = self.leases(adapter.digest)
            self.lease(adapter)
            if self.leases(adapter.digest) > before:
                self.slots.release(adapter.digest)
                self.held[adapter.digest].pop()

    @rule(adapter=st.sampled_from(ADAPTERS))
    def lease_of_what_cannot_be_staged(self, adapter: Adapter) -> None:
        free_or_evictable = len(self.recent) < self.serving or self.evictable()
        if adapter.digest in self.recent or not free_or_evictable:
            return
        placed, loads, evictions = dict(self.runner.placed), self.slots.loads, self.slots.evictions
        self.runner.unstageable.add(adapter.digest)
        with pytest.raises(MemoryError):
            self.slots.lease(adapter)
        self.runner.unstageable.clear()
        assert self.runner.placed == placed, "a failed load changes nothing"
        assert (self.slots.loads, self.slots.evictions) == (loads, evictions)

    @rule(adapters=st.sets(st.sampled_from(range(len(ADAPTERS))), max_size=5))
    def pin(self, adapters: set[int]) -> None:
        digests = frozenset(ADAPTERS[i].digest for i in adapters)
        if len(digests) < self.serving:
            self.slots.pin(digests)
            self.pinned = digests
        else:
            with pytest.raises(ValueError, match=f"at most {self.serving - 1}"):
                self.slots.pin(digests)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(d for d in self.held if self.held[d])))
        self.slots.release(digest)
        self.held[digest].pop()

    @rule(adapter=st.sampled_from(ADAPTERS))
    def drop(self, adapter: Adapter) -> None:
        digest = adapter.digest
        dropped = self.slots.drop(digest)
        assert dropped == (not self.leases(digest)), "what is leased is not dropped"
        if dropped and digest in self.recent:
            self.recent.remove(digest)
            assert adapter not in [self.runner.placed.get(s) for s in range(1, self.runner.slots - 1)]

    @rule()
    def lease_the_foundation(self) -> None:
        assert self.slots.lease(FOUNDATION) == 0
        self.slots.release(FOUNDATION.digest)

    @rule(adapter=st.sampled_from(ADAPTERS), fails=st.booleans())
    def lease_for_verification(self, adapter: Adapter, fails: bool) -> None:
        if self.verifying and self.verifying[0] is not adapter:
            assert self.slots.lease(adapter, verifying=True) is None, "two never share a slot"
            return
        staged = self.runner.staged[adapter.digest]
        if fails and not self.verifying:
            self.runner.unstageable.add(adapter.digest)
            with pytest.raises(MemoryError):
                self.slots.lease(adapter, verifying=True)
            self.runner.unstageable.clear()
            return
        assert self.slots.lease(adapter, verifying=True) == self.runner.slots - 1
        assert self.runner.staged[adapter.digest] == staged + (not self.verifying), "staged once for all its rows"
        self.verifying.append(adapter)

    @precondition(lambda self: self.verifying)
    @rule()
    def release_from_verification(self) -> None:
        self.slots.release(self.verifying.pop().digest, verifying=True)

    @invariant()
    def every_lease_still_points_at_its_adapter(self) -> None:
        for digest, slots in self.held.items():
            assert all(self.runner.placed[slot].digest == digest for slot in slots)

    @invariant()
    def the_foundation_and_verification_keep_their_slots(self) -> None:
        assert self.runner.placed[0].digest == FOUNDATION.digest
        held = self.runner.placed.get(self.runner.slots - 1)
        assert held is (self.verifying[0] if self.verifying else None)

    @invariant()
    def no_adapter_sits_twice_and_none_unseen(self) -> None:
        serving = [a.digest for s, a in self.runner.placed.items() if 0 < s < self.runner.slots - 1]
        assert sorted(serving) == sorted(self.recent) == sorted(self.slots.resident())


SlotsMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestSlotsKeepTheirPromises = SlotsMachine.TestCase


def test_the_adapter_that_was_used_last_stays_when_another_needs_a_slot() -> None:
    slots = Slots(FakeRunner(4), FOUNDATION)
    a, b, c = ADAPTERS[:3]
    for adapter in (a, b, a, c):
        slots.lease(adapter)
        slots.release(adapter.digest)
    assert slots.resident() == {a.digest, c.digest}
    assert (slots.loads, slots.evictions) == (3, 1)


def test_a_pinned_adapter_stays_however_many_others_come_until_it_is_pinned_no_more() -> None:
    slots = Slots(FakeRunner(4), FOUNDATION)
    slots.pin(frozenset({ADAPTERS[0].digest}))
    for adapter in ADAPTERS:
        slots.lease(adapter)
        slots.release(adapter.digest)
    assert slots.resident() == {ADAPTERS[0].digest, ADAPTERS[-1].digest}
    slots.pin(frozenset())
    for adapter in ADAPTERS[1:3]:
        slots.lease(adapter)
        slots.release(adapter.digest)
    assert slots.resident() == {a.digest for a in ADAPTERS[1:3]}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_slots_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        Slots(FakeRunner(count), FOUNDATION)

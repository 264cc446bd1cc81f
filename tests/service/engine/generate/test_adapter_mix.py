"""The updates of a pass: each token gets its adapter's, and a pass after another copies little."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.runners.decoder.packed_pass import PackedPart, PackedPass
from rootstock.service.engine.runners.decoder.updates import AdapterMix, TensorUpdate, TokenRun, UpdateStack

IN, OUT = 6, 5


def _update(seed: int, rank: int) -> TensorUpdate:
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, IN, generator=draw), torch.randn(rank, OUT, generator=draw)
    return TensorUpdate(a, b, None, None, None)


_PASSES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=12), min_size=1, max_size=8
)


@settings(deadline=None)
@given(ranks=st.lists(st.sampled_from([0, 2, 2, 3]), min_size=9, max_size=9), passes=_PASSES)
def test_each_token_gets_the_update_of_its_adapter_whatever_passes_came_before(
    ranks: list[int], passes: list[list[tuple[int, int]]]
) -> None:
    mix = AdapterMix()
    mix.place(0, {})
    updates = {slot: _update(slot, rank) for slot, rank in enumerate(ranks, start=1)}
    for slot, update in updates.items():
        mix.place(slot, {"site": update} if slot % 4 else {})
    for number, chosen in enumerate(passes):
        decodes = number % 2 == 0
        parts = [PackedPart(slot, [0] * (1 if decodes else length)) for slot, length in chosen]
        tokens = PackedPass(parts, mix, decodes)
        x = torch.randn(tokens.ids.shape[1], IN)
        y = torch.zeros(len(x), OUT)
        plan = mix.plan("site")
        for part in plan.low_rank if plan is not None else ():
            part.add(y, x)
        for part, (first, end) in zip(parts, tokens.bounds, strict=True):
            update = updates.get(part.slot)
            own = x[first:end]
            changed = update is not None and part.slot % 4
            expected = (
                own @ update.a.T @ update.b if changed and update is not None else torch.zeros(len(own), OUT)
            )
            torch.testing.assert_close(y[first:end], expected)


@given(
    passes=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=12, unique=True), min_size=2, max_size=8)
)
def test_adapters_that_stay_keep_their_places_unless_one_fills_a_gap(passes: list[list[int]]) -> None:
    mix = AdapterMix()
    for slot in range(13):
        mix.place(slot, {"site": _update(slot, 2)} if slot else {})
    before: dict[int, int] = {}
    for slots in passes:
        places = dict(mix.order(slots))
        adapters = {slot: place for slot, place in places.items() if slot}
        assert sorted(adapters.values()) == list(range(len(adapters)))
        assert 0 not in places or places[0] >= len(adapters)
        moved = [slot for slot in adapters if before.get(slot, adapters[slot]) != adapters[slot]]
        assert len(moved) <= len(before.keys() - adapters.keys())
        before = adapters


@settings(deadline=None)
@given(passes=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=10), min_size=1, max_size=10))
def test_a_stack_holds_the_updates_that_were_asked_for_in_their_order(passes: list[list[int]]) -> None:
    updates = [_update(i, 2) for i in range(10)]
    stack = UpdateStack()
    for chosen in passes:
        a, b = stack.of([updates[i] for i in chosen])
        assert torch.equal(a, torch.stack([updates[i].a for i in chosen]))
        assert torch.equal(b, torch.stack([updates[i].b for i in chosen]))


def test_an_adapter_that_replaces_another_in_its_slot_is_applied_in_the_next_pass() -> None:
    mix = AdapterMix()
    runs = [TokenRun(slot, slot, slot + 1) for slot in range(3)]
    for slot in range(3):
        mix.place(slot, {"site": _update(slot, 2)})
    x = torch.randn(3, IN)
    for seed in (1, 7):
        mix.place(1, {"site": _update(seed, 2)})
        mix.take(runs, decodes=True)
        y = torch.zeros(3, OUT)
        plan = mix.plan("site")
        assert plan is not None
        for part in plan.low_rank:
            part.add(y, x)
        update = _update(seed, 2)
        torch.testing.assert_close(y[1], x[1] @ update.a.T @ update.b)

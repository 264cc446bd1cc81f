"""The cache of sources and answers: both count against one limit, and a sequence that can fit does fit."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.runners.seq2seq.source_rows import SourceRows

SHAPE = (2, 1, 1)


@settings(deadline=None, max_examples=200)
@given(capacity=st.integers(2, 3000), share=st.floats(0, 1))
def test_an_empty_cache_has_room_for_a_source_and_an_answer_of_its_whole_capacity(
    capacity: int, share: float
) -> None:
    cache = SourceRows(SHAPE, capacity, torch.float32)
    source = 1 + int(share * (capacity - 2))
    row = cache.open(source)
    assert cache.extend(row, capacity - source)
    place, length = cache.source(row)
    assert length == source <= place.slab.room
    assert cache[row].slab.room >= capacity - source
    assert cache.used <= capacity
    cache.close(row)
    assert cache.used == 0


@settings(deadline=None, max_examples=200)
@given(
    capacity=st.integers(64, 3000),
    actions=st.lists(
        st.tuples(st.sampled_from(["open", "grow", "close"]), st.integers(0, 9), st.integers(1, 300))
    ),
)
def test_a_row_keeps_its_source_and_its_answer_whatever_rows_come_and_go_beside_it(
    capacity: int, actions: list[tuple[str, int, int]]
) -> None:
    cache = SourceRows(SHAPE, capacity, torch.float32)
    held: dict[int, int] = {}
    for action, which, length in actions:
        rows = list(held)
        if action == "open" or not rows:
            held[cache.open(length)] = 0
            continue
        row = rows[which % len(rows)]
        if action == "close":
            cache.close(row)
            del held[row]
        elif cache.extend(row, length):
            place, size = cache.source(row)
            if not held[row]:
                place.keys[:, :, :size] = float(-row - 1)
            cache[row].keys[:, :, held[row] : length] = float(row)
            held[row] = max(length, held[row])
        assert cache.used <= capacity
        for other, tokens in held.items():
            if tokens:
                place, size = cache.source(other)
                assert (place.keys[:, :, :size] == -other - 1).all()
                assert (cache[other].keys[:, :, :tokens] == other).all()
    for row in held:
        cache.close(row)
    assert cache.used == 0

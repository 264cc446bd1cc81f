"""The cache of keys and values: what a row holds stays, whatever rows come, grow and go beside it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.runners.decoder.kv_rows import KvRows

SHAPE = (2, 1, 1)


@settings(deadline=None, max_examples=200)
@given(
    capacity=st.integers(64, 3000),
    actions=st.lists(
        st.tuples(st.sampled_from(["open", "grow", "close"]), st.integers(0, 9), st.integers(1, 400))
    ),
)
def test_a_row_keeps_its_content_and_all_rows_stay_within_the_capacity(
    capacity: int, actions: list[tuple[str, int, int]]
) -> None:
    cache = KvRows(SHAPE, capacity, torch.float32)
    lengths: dict[int, int] = {}
    for action, which, length in actions:
        rows = list(lengths)
        if action == "open" or not rows:
            lengths[cache.open()] = 0
        elif action == "close":
            cache.close(rows[which % len(rows)])
            del lengths[rows[which % len(rows)]]
        else:
            row = rows[which % len(rows)]
            if cache.extend(row, length):
                place = cache[row]
                assert place.slab.room >= max(length, lengths[row])
                begin = lengths[row]
                lengths[row] = max(length, begin)
                place.keys[:, :, begin : lengths[row]] = float(row)
                place.values[:, :, begin : lengths[row]] = float(-row)
            elif len(rows) == 1:
                assert length > capacity - (cache[row].slab.tokens if lengths[row] else 0)
        assert cache.used <= capacity
        for row, held in lengths.items():
            if held:
                assert (cache[row].keys[:, :, :held] == row).all()
                assert (cache[row].values[:, :, :held] == -row).all()
    for row in lengths:
        cache.close(row)
    assert cache.used == 0

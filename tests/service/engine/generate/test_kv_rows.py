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
        st.tuples(
            st.sampled_from(["open", "grow", "grow", "close", "keep", "copy"]),
            st.integers(0, 9),
            st.integers(1, 400),
        )
    ),
)
def test_a_row_keeps_its_content_and_all_rows_stay_within_the_capacity(
    capacity: int, actions: list[tuple[str, int, int]]
) -> None:
    cache = KvRows(SHAPE, capacity, torch.float32)
    lengths: dict[int, int] = {}
    kept: dict[int, int] = {}
    # A row holds the number of the row that its first tokens were written to.
    origins: dict[int, int] = {}
    for action, which, length in actions:
        rows = list(lengths)
        if action == "open" or not rows:
            row = cache.open()
            lengths[row], origins[row] = 0, row
        elif action == "close":
            cache.close(rows[which % len(rows)])
            del lengths[rows[which % len(rows)]]
        elif action == "keep":
            row = rows[which % len(rows)]
            if lengths[row] and cache.keep(row, min(length, lengths[row])):
                kept[row] = min(length, lengths.pop(row))
        elif action == "copy":
            row = rows[which % len(rows)]
            if kept and cache.extend(row, length):
                source = [*kept][length % len(kept)]
                cache.copy(source, row, min(length, kept[source]))
                lengths[row], origins[row] = min(length, kept[source]), origins[source]
        else:
            row = rows[which % len(rows)]
            if cache.extend(row, length):
                place = cache[row]
                assert place.slab.room >= max(length, lengths[row])
                begin = lengths[row]
                lengths[row] = max(length, begin)
                place.keys[:, :, begin : lengths[row]] = float(origins[row])
                place.values[:, :, begin : lengths[row]] = float(-origins[row])
            elif len(rows) == 1 and not kept:
                assert length > capacity - (cache[row].slab.tokens if lengths[row] else 0)
        assert cache.used + cache.kept <= capacity
        assert cache.kept == sum(kept.values())
        for row, held in {**lengths, **kept}.items():
            if held:
                assert (cache[row].keys[:, :, :held] == origins[row]).all()
                assert (cache[row].values[:, :, :held] == -origins[row]).all()
    for row in [*lengths, *kept]:
        cache.close(row)
    assert cache.used == cache.kept == 0

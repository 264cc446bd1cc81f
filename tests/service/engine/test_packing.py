"""Of the batches that hold the first row and keep the limits, the cheapest is packed."""

from __future__ import annotations

from itertools import combinations, count

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.request import Request
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.modalities.audio.audio_reader import AudioSample
from rootstock.service.engine.encode.packing import BatchLimits, pack
from tests.service.engine.test_queue import adapter, check_limits, make_row

LENGTHS = st.lists(st.one_of(st.integers(1, 60), st.sampled_from([8, 9, 10])), min_size=1, max_size=9)


def cost(lengths: list[int], limits: BatchLimits) -> float:
    return (limits.overhead + len(lengths) * max(lengths)) / sum(lengths)


def allowed(lengths: list[int], limits: BatchLimits) -> bool:
    padded = len(lengths) * max(lengths)
    return len(lengths) == 1 or (
        len(lengths) <= limits.rows
        and padded <= limits.tokens
        and padded - sum(lengths) <= limits.padding * padded
    )


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 6), st.integers(20, 200), st.floats(0, 1), st.integers(0, 200))
def test_no_other_run_of_rows_of_neighbouring_lengths_costs_less_a_token(
    lengths: list[int], rows: int, tokens: int, padding: float, overhead: int
) -> None:
    limits = BatchLimits(rows, tokens, padding, overhead)
    given_rows = [make_row("A", n) for n in lengths]
    batch = pack(given_rows, limits)
    check_limits(batch, limits)
    assert batch[0] is given_rows[0]
    assert batch == [row for row in given_rows if row in batch], "in the order given"
    ordered = sorted(lengths)
    head = ordered.index(lengths[0])
    runs = [ordered[i:j] for i, j in combinations(range(len(ordered) + 1), 2) if i <= head < j]
    best = min(cost(run, limits) for run in runs if allowed(run, limits))
    assert cost([row.cost for row in batch], limits) <= best + 1e-9


def test_more_padding_is_taken_where_a_batch_costs_much() -> None:
    rows = [make_row("A", n) for n in (16, 24, 24, 16)]
    assert [r.cost for r in pack(rows, BatchLimits(overhead=0))] == [16, 16]
    assert [r.cost for r in pack(rows, BatchLimits(overhead=2000))] == [16, 24, 24, 16]


def test_of_rows_of_one_length_the_first_are_taken() -> None:
    rows = [make_row("A", n) for n in (20, 19, 19, 20, 20, 19)]
    assert pack(rows, BatchLimits(rows=3, padding=0.0)) == [rows[0], rows[3], rows[4]]
    rows = [make_row("A", n) for n in (20, 19, 19, 19)]
    assert pack(rows, BatchLimits(rows=3)) == rows[:3]


def test_an_input_takes_one_place_however_many_rows_it_has() -> None:
    rows = [make_row(f"A{i}", 16, text=1) for i in range(3)] + [make_row("B", 16), make_row("C", 16)]
    assert pack(rows, BatchLimits(rows=2)) == rows[:4]


def test_one_adapter_that_is_asked_the_same_again_and_again_fills_no_more_than_the_limits() -> None:
    rows = [make_row("A", 16, text=1) for _ in range(6)] + [make_row("B", 16, text=1)]
    assert pack(rows, BatchLimits(rows=3)) == [*rows[:3], rows[6]]


KEYS = count()


def make_recording(samples: int, cost: int) -> Row:
    """A row of a wave form that no other has."""
    key = next(KEYS).to_bytes(8)
    sample = AudioSample({"input_values": np.zeros(samples, np.float32)}, cost, key)
    return Row(Request(adapter("A"), [""], {}, 0.0, 0.0, "", "normal", False), 0, sample)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=12), st.floats(0, 1))
def test_wave_forms_share_a_batch_only_if_their_lengths_are_equal(
    lengths: list[tuple[int, int]], padding: float
) -> None:
    limits = BatchLimits(rows=4, tokens=64, padding=padding)
    rows = [make_recording(samples, cost) for samples, cost in lengths]
    batch = pack(rows, limits)
    assert batch[0] is rows[0]
    assert {row.group for row in batch} == {(lengths[0][0],)}
    alike = [row for row, (samples, _) in zip(rows, lengths, strict=True) if samples == lengths[0][0]]
    assert batch == pack(alike, limits), "rows of other lengths change nothing"


def test_wave_forms_of_one_length_fill_a_batch_where_no_padding_is_allowed() -> None:
    rows = [make_recording(samples, 2) for samples in (400, 401, 400, 401, 400)]
    assert pack(rows, BatchLimits(padding=0.0)) == rows[::2]

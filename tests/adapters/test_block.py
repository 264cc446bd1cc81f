"""Blocks of numbers: a large one is its own mapping, and goes back to the system with its last view."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.bundle.block import new_block

STATM = Path("/proc/self/statm")
# A rank-8 adapter of the query and value projections of the default foundation takes about as many.
SIZE = 76_000


@pytest.mark.skipif(not STATM.is_file(), reason="this system has no /proc to read the memory of a process from")
def test_blocks_that_go_between_others_that_stay_leave_the_process() -> None:
    # Freed first, such a block makes malloc take the next of its size from the heap.
    del_first = np.ones(SIZE, np.float32)
    del del_first
    blocks = []
    for _ in range(200):
        block = new_block(SIZE)
        block[...] = 1
        blocks.append(block[: SIZE // 2])
        del block
    before = _resident()
    kept = blocks[1::2]
    del blocks[::2]
    freed = before - _resident()
    assert freed >= 0.9 * 100 * SIZE * 4
    assert all(view.all() for view in kept)


@pytest.mark.parametrize("size", [0, 1, 1000, SIZE])
def test_a_block_is_zeros_that_can_be_written_and_has_room_for_the_size(size: int) -> None:
    block = new_block(size)
    assert block.dtype == np.float32
    assert block.shape >= (size,)
    assert not block.any()
    block[:] = 1
    assert block.all()


def test_a_large_block_counts_with_the_whole_pages_that_it_takes() -> None:
    assert new_block(SIZE).nbytes == -(-SIZE * 4 // mmap.PAGESIZE) * mmap.PAGESIZE


def test_where_the_system_maps_no_more_a_block_comes_from_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    # Filled up for real, a process has no room for a growing heap either, or has it, as the system pleases.
    monkeypatch.setattr(mmap, "mmap", full)
    block = new_block(SIZE)
    assert block.shape == (SIZE,)
    assert not block.any()


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

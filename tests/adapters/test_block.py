"""Blocks of numbers: a large one is its own mapping, and goes back to the system with its last view."""

from __future__ import annotations

import math
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapters.bundle.block import new_block

STATM = Path("/proc/self/statm")
# A rank-8 adapter of the query and value projections of the default foundation takes about as many.
SIZE = 76_000
# Neighbours that differ in what they permit are not merged.
FULL = f"""
import mmap
from adapters.bundle.block import new_block
new_block({SIZE})
held = []
try:
    while True:
        held.append(mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | (mmap.PROT_WRITE * (len(held) % 2))))
except OSError:
    print(new_block({SIZE}).nbytes)
"""


def _max_mappings() -> float:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:
        return math.inf


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


@pytest.mark.skipif(_max_mappings() > 100_000, reason="this system lets a process have many more mappings")
def test_where_the_system_maps_no_more_a_block_comes_from_the_heap() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(SIZE * 4)), done.stderr


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

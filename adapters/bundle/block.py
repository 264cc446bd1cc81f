"""Memory for the numbers of one adapter, which the system has back when the adapter goes."""

from __future__ import annotations

import mmap

import numpy as np

from rootstock.adapters.spec import Array

# Below this, whole pages and a mapping for each adapter would cost more than the heap's holes; glibc's malloc
# maps from the same size on, until it raises it (M_MMAP_THRESHOLD in mallopt(3)).
_MAPPED_FROM_BYTES = 128 * 2**10


def new_block(size: int) -> Array:
    """Return at least `size` zeros (fp32, flat): a large block in separate pages, as many numbers as fill them.

    With adapters on the heap, a server that loads and drops them for long holds far more than its cache.
    Malloc maps no blocks up to the size of the largest that was freed, and each loading thread has a separate
    arena. Free memory below an adapter that stays is not given back.
    """
    nbytes = size * np.dtype(np.float32).itemsize
    if nbytes < _MAPPED_FROM_BYTES:
        return np.zeros(size, np.float32)
    whole = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        pages = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        # Linux limits how many mappings a process has (vm.max_map_count); the heap has room beyond that.
        return np.zeros(size, np.float32)
    return np.frombuffer(pages, np.float32)

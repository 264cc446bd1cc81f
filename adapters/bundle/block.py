"""Memory for one adapter's numbers, which goes back to the operating system when the adapter is dropped."""

from __future__ import annotations

import mmap

import numpy as np

from rootstock.adapters.spec import Array

# For smaller blocks, whole pages and a mapping for each adapter would cost more than the heap's fragmentation.
# glibc's malloc starts to map blocks at the same size, until it raises the threshold (M_MMAP_THRESHOLD in
# mallopt(3)).
_MAPPED_FROM_BYTES = 128 * 2**10


def new_block(size: int) -> Array:
    """Return at least `size` zeros (fp32, flat); a large block has its own pages and fills them.

    With adapters on the heap, a server that loads and drops adapters for long holds far more memory than its
    cache needs. Malloc does not map blocks up to the size of the largest freed one, and each loading thread has
    a separate arena. The heap keeps free memory below any adapter that stays.
    """
    nbytes = size * np.dtype(np.float32).itemsize
    if nbytes < _MAPPED_FROM_BYTES:
        return np.zeros(size, np.float32)
    whole = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        pages = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        # Linux limits the number of mappings of a process (vm.max_map_count); the heap has no such limit.
        return np.zeros(size, np.float32)
    return np.frombuffer(pages, np.float32)

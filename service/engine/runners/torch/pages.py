"""Keep adapters in device memory in pages of equal size, so that each takes only as many as it needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rootstock.service.engine.core.errors import RunnerFault

Numbers = npt.NDArray[np.int64]

_FIRST = 64


class Pages:
    """Pages of `rows` x `width` numbers in one tensor, (pages, rows, width), which grows as needed.

    Page i below `len(constants)` is reserved: every number in it is `constants[i]`.
    """

    def __init__(
        self, rows: int, width: int, constants: Sequence[float], dtype: torch.dtype, device: torch.device
    ) -> None:
        filled = torch.tensor(constants, dtype=dtype, device=device)
        self.store = filled[:, None, None].repeat(1, rows, width)
        # The number of times that a larger tensor replaced this one.
        self.growths = 0
        self._free: list[int] = []

    @property
    def nbytes(self) -> int:
        return self.store.nbytes

    def reserve(self, count: int, room: int | None = None) -> None:
        """Grow, by at most `room` bytes, until `count` pages are free. Raise RunnerFault if they do not fit."""
        missing = count - len(self._free)
        if missing <= 0:
            return
        held = len(self.store)
        added = max(missing, held, _FIRST)
        if room is not None:
            page = self.store[0].nbytes
            if missing * page > room:
                raise RunnerFault(
                    f"it needs {missing * page} bytes more on the device and {room} are left for adapters; give "
                    "the runner more adapter_bytes or fewer slots"
                )
            added = min(added, room // page)
        grown = torch.zeros(held + added, *self.store.shape[1:], dtype=self.store.dtype, device=self.store.device)
        grown[:held] = self.store
        self.store = grown
        self.growths += 1
        self._free.extend(range(held + added - 1, held - 1, -1))

    def take(self, count: int) -> Numbers:
        """Return the numbers of `count` pages. The caller owns them until `give`. Grow if too few are free."""
        self.reserve(count)
        return np.array([self._free.pop() for _ in range(count)], np.int64)

    def give(self, numbers: Numbers) -> None:
        """Take pages back. Work on the device that still reads them was queued before any later write to them."""
        self._free.extend(numbers.tolist())

    def write(self, numbers: Tensor, values: Tensor) -> None:
        """Fill the pages of these numbers with `values` (pages, rows, width)."""
        self.store.index_copy_(0, numbers, values.to(self.store.dtype))

"""Keep the keys and values of sequences in one growing buffer for each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

# A row grows by at least this many tokens, so that a sequence is seldom copied.
_LEAST = 64


@dataclass(slots=True)
class KvRow:
    """The buffer of one sequence: keys and values (layers, heads, room, width)."""

    keys: Tensor
    values: Tensor

    @property
    def room(self) -> int:
        return self.keys.shape[2]


class KvRows:
    """A cache (generate.decoder.KvCache) whose rows are separate buffers that double as they grow.

    All rows together have room for at most `capacity` tokens.
    """

    def __init__(self, shape: tuple[int, int, int], capacity: int, dtype: torch.dtype) -> None:
        """Take the shape of one token: layers, heads, width."""
        self.capacity = capacity
        self._layers, self._heads, self._width = shape
        self._dtype = dtype
        self._rows: dict[int, KvRow] = {}
        self._numbers = count()
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def __getitem__(self, row: int) -> KvRow:
        return self._rows[row]

    def open(self) -> int:
        """Return a new, empty row."""
        row = next(self._numbers)
        self._rows[row] = KvRow(self._empty(0), self._empty(0))
        return row

    def extend(self, row: int, length: int) -> bool:
        """Make room for `length` tokens in a row. Return False, and change nothing, if the cache is too full."""
        held = self._rows[row]
        if length <= held.room:
            return True
        most = held.room + self.capacity - self._used
        if length > most:
            return False
        room = min(max(2 * held.room, -(-length // _LEAST) * _LEAST), most)
        keys, values = self._empty(room), self._empty(room)
        if held.room:
            keys[:, :, : held.room] = held.keys
            values[:, :, : held.room] = held.values
        self._used += room - held.room
        held.keys, held.values = keys, values
        return True

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy the first `length` tokens of another row, for which this row has room."""
        held, other = self._rows[row], self._rows[source]
        held.keys[:, :, :length] = other.keys[:, :, :length]
        held.values[:, :, :length] = other.values[:, :, :length]

    def close(self, row: int) -> None:
        """Free a row."""
        self._used -= self._rows.pop(row).room

    def _empty(self, room: int) -> Tensor:
        return torch.empty((self._layers, self._heads, room, self._width), dtype=self._dtype)

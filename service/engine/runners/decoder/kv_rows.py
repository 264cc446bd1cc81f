"""Keep the keys and values of sequences in slabs: buffers of several rows with the same room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

# The least room of a row in tokens. A row that grows doubles its room, so a sequence is seldom copied.
_LEAST = 64
# A slab has at most this many rows, and about this many tokens: a sixteenth of the cache, if that is less.
_ROWS = 16
_TOKENS = 4096


class KvSlab:
    """The keys and values of up to `rows` sequences: (layers, rows, heads, room, width).

    The rows that are taken come first: `owners` lists whose they are.
    """

    def __init__(self, shape: tuple[int, int, int], rows: int, room: int, dtype: torch.dtype) -> None:
        layers, heads, width = shape
        self.rows = rows
        self.room = room
        self.owners: list[int] = []
        # Rows that no sequence has used are read too, beside others, so they must hold numbers.
        self.keys, self.values = (torch.zeros((layers, rows, heads, room, width), dtype=dtype) for _ in range(2))

    @property
    def tokens(self) -> int:
        return self.rows * self.room


class KvPlace(NamedTuple):
    """The place of a sequence: a row of a slab."""

    slab: KvSlab
    row: int

    @property
    def keys(self) -> Tensor:
        """Return the keys: (layers, heads, room, width)."""
        return self.slab.keys[:, self.row]

    @property
    def values(self) -> Tensor:
        """Return the values: (layers, heads, room, width)."""
        return self.slab.values[:, self.row]


@dataclass
class KvRoom:
    """The room of a cache in tokens, and how much of it slabs take."""

    capacity: int
    used: int = 0


class KvRows:
    """A cache (generate.decoder.KvCache) in slabs. A step computes the attention of a slab's rows at once.

    All slabs together have room for at most `capacity` tokens.
    """

    def __init__(
        self, shape: tuple[int, int, int], capacity: int, dtype: torch.dtype, beside: KvRows | None = None
    ) -> None:
        """Take the shape of one token: layers, heads, width. Share the room of the rows `beside`, if given."""
        self._room: KvRoom = KvRoom(capacity) if beside is None else beside._room
        self._shape = shape
        self._dtype = dtype
        self._slabs: dict[int, list[KvSlab]] = {}
        self._places: dict[int, KvPlace | None] = {}
        self._numbers = count()
        # Rows that are only copied. Each has a slab that no pass reads, with room for its tokens and no more.
        self._kept: set[int] = set()

    @property
    def capacity(self) -> int:
        return self._room.capacity

    @property
    def used(self) -> int:
        return self._room.used

    @property
    def kept(self) -> int:
        return sum(self[row].slab.room for row in list(self._kept))

    def __getitem__(self, row: int) -> KvPlace:
        place = self._places[row]
        if place is None:
            raise KeyError(f"row {row} has no room yet; extend it first")
        return place

    def open(self, source: int = 0) -> int:
        """Return a new, empty row. Without an encoder there is no source."""
        row = next(self._numbers)
        self._places[row] = None
        return row

    def extend(self, row: int, length: int, keep: int = 0) -> bool:
        """Make room for `length` tokens in a row, and leave room for `keep` others.

        Return False, and change nothing, if the cache is too full.
        """
        place = self._places[row]
        if place is not None and length <= place.slab.room:
            return True
        slab = next(self._with_room(length, keep), None)
        if slab is None:
            return False
        slab.owners.append(row)
        self._places[row] = KvPlace(slab, len(slab.owners) - 1)
        if place is not None:
            self._copy(place, self[row], place.slab.room)
            self._leave(place)
        return True

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy the first `length` tokens of a row into another one, which has room for them."""
        self._copy(self[source], self[row], length)

    def keep(self, row: int, length: int) -> bool:
        """Keep the first `length` tokens of a row for copies, and take the row out of the passes' use.

        Return False, and change nothing, if the cache is too full.
        """
        if self.used + self.kept + length > self.capacity:
            return False
        place = self[row]
        try:
            self._places[row] = KvPlace(KvSlab(self._shape, 1, length, self._dtype), 0)
        except RuntimeError:  # torch has no memory left, although the limit allows more
            return False
        self._copy(place, self[row], length)
        self._leave(place)
        self._kept.add(row)
        return True

    def close(self, row: int) -> None:
        """Free a row."""
        place = self._places.pop(row)
        if row in self._kept:
            self._kept.remove(row)
        elif place is not None:
            self._leave(place)

    def _with_room(self, length: int, keep: int) -> Iterator[KvSlab]:
        """Yield a slab with a free row of at least this room: the one with least room first, then a new one."""
        for room in sorted(self._slabs):
            if room >= length:
                yield from (slab for slab in self._slabs[room] if len(slab.owners) < slab.rows)
                if room < 2 * length:
                    break
        free = self.capacity - self.used - self.kept - keep
        room = _LEAST
        while room < length:
            room *= 2
        if room > free:
            # The last room of the cache need not be a power of two.
            room = free
        if room < length:
            return
        rows = max(1, min(_ROWS, min(_TOKENS, self.capacity // 16) // room, free // room))
        try:
            slab = KvSlab(self._shape, rows, room, self._dtype)
        except RuntimeError:  # torch has no memory left, although the limit allows more
            return
        self._slabs.setdefault(room, []).append(slab)
        self._room.used += slab.tokens
        yield slab

    def _copy(self, source: KvPlace, target: KvPlace, length: int) -> None:
        target.keys[:, :, :length] = source.keys[:, :, :length]
        target.values[:, :, :length] = source.values[:, :, :length]

    def _leave(self, place: KvPlace) -> None:
        """Free a place. The last row of the slab moves into it, so that the rows that are taken come first."""
        slab, row = place
        last = slab.owners.pop()
        if row < len(slab.owners):
            slab.owners[row] = last
            self._copy(KvPlace(slab, len(slab.owners)), place, slab.room)
            self._places[last] = place
        if not slab.owners:
            self._slabs[slab.room].remove(slab)
            if not self._slabs[slab.room]:
                del self._slabs[slab.room]
            self._room.used -= slab.tokens

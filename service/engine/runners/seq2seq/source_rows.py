"""Keep two parts of each sequence in one room: the keys and values of its source, and those of its answer."""

from __future__ import annotations

import torch

from rootstock.service.engine.runners.decoder.kv_rows import KvPlace, KvRows


class SourceRows:
    """A cache (generate.decoder.KvCache) of sequences with sources. A token of either takes the same room."""

    def __init__(self, shape: tuple[int, int, int], capacity: int, dtype: torch.dtype) -> None:
        """Take the shape of one token: layers, heads, width."""
        self._answers = KvRows(shape, capacity, dtype)
        self._sources = KvRows(shape, capacity, dtype, self._answers)
        # For each row, the row and the length of its source.
        self._places: dict[int, tuple[int, int]] = {}

    @property
    def capacity(self) -> int:
        return self._answers.capacity

    @property
    def used(self) -> int:
        return self._answers.used

    @property
    def kept(self) -> int:
        return self._answers.kept

    def __getitem__(self, row: int) -> KvPlace:
        """Return the place of the answer's tokens."""
        return self._answers[row]

    def source(self, row: int) -> tuple[KvPlace, int]:
        """Return the place of the source and its length in tokens."""
        source, length = self._places[row]
        return self._sources[source], length

    def open(self, source: int = 0) -> int:
        """Return a new, empty row for a source of so many tokens."""
        row = self._answers.open()
        self._places[row] = self._sources.open(), source
        return row

    def extend(self, row: int, length: int) -> bool:
        """Make room for the source and `length` tokens of the answer. Return False if the cache is too full."""
        source, tokens = self._places[row]
        return self._sources.extend(source, tokens, keep=length) and self._answers.extend(row, length)

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy the first `length` tokens of a row's answer into another one, which has room for them."""
        self._answers.copy(source, row, length)

    def keep(self, row: int, length: int) -> bool:
        """Return False, because an answer's keys and values are of no use after another source."""
        return False

    def close(self, row: int) -> None:
        """Free a row."""
        self._sources.close(self._places.pop(row)[0])
        self._answers.close(row)

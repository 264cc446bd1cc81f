"""The bare trunk's outputs for an input, kept for adapters that add a head to it and change nothing else."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from rootstock.adapters.spec import Array

Key = tuple[str, bytes]

# The bytes that Python keeps beside the numbers and the input: of each output, and of each of its arrays.
_OUTPUT_BYTES = 512
_ARRAY_BYTES = 128


@dataclass(frozen=True)
class TrunkOutput:
    """One input's outputs: `hidden` (tokens, width), or (1, width) for the first token alone, and `pooled`."""

    arrays: Mapping[str, Array]
    first_token: bool

    @property
    def nbytes(self) -> int:
        return _OUTPUT_BYTES + sum(array.nbytes + _ARRAY_BYTES for array in self.arrays.values())


class TrunkCache:
    """Outputs by fingerprint and input, least recently used out by bytes. Used from one thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._held: OrderedDict[Key, TrunkOutput] = OrderedDict()

    def find(self, key: Key, reads: frozenset[str], first_token: bool) -> TrunkOutput | None:
        """Return the kept output that holds what a head reads, if any; `first_token`: it reads no other token."""
        output = self._held.get(key)
        if output is None or not reads <= output.arrays.keys() or (output.first_token and not first_token):
            return None
        self._held.move_to_end(key)
        return output

    def put(self, key: Key, output: TrunkOutput) -> None:
        """Keep an output, unless it alone is larger than the cache."""
        nbytes = memory_of(key, output)
        if nbytes > self.max_bytes:
            return
        self._drop(key)
        self._held[key] = output
        self.nbytes += nbytes
        while self.nbytes > self.max_bytes:
            self._drop(next(iter(self._held)))

    def __len__(self) -> int:
        return len(self._held)

    def _drop(self, key: Key) -> None:
        output = self._held.pop(key, None)
        if output is not None:
            self.nbytes -= memory_of(key, output)


def memory_of(key: Key, output: TrunkOutput) -> int:
    """Return the bytes that go free with an entry: its arrays and its input, which can be the larger part."""
    return sys.getsizeof(key[1]) + output.nbytes

"""Keep the bare trunk's outputs for inputs that come again, for adapters that only add a head."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from rootstock.adapters.spec import Array

Key = tuple[str, bytes]

# Python's overhead in bytes for each output and each of its arrays, beside the numbers and the input.
_OUTPUT_BYTES = 512
_ARRAY_BYTES = 128


@dataclass(frozen=True)
class TrunkOutput:
    """The trunk's outputs for one input: "hidden" (tokens, width) and "pooled".

    With `first_token`, "hidden" is (1, width), for the first token alone.
    """

    arrays: Mapping[str, Array]
    first_token: bool

    @property
    def nbytes(self) -> int:
        return _OUTPUT_BYTES + sum(array.nbytes + _ARRAY_BYTES for array in self.arrays.values())


class TrunkCache:
    """A cache of outputs by fingerprint and input. It evicts the least recently used to stay within `max_bytes`.

    Only one thread may use it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._outputs: OrderedDict[Key, TrunkOutput] = OrderedDict()

    def find(self, key: Key, reads: frozenset[str], first_token: bool) -> TrunkOutput | None:
        """Return the kept output that has what a head reads, if any.

        `reads` names the outputs that the head reads. With `first_token`, it reads only the first token.
        """
        output = self._outputs.get(key)
        if output is None or not reads <= output.arrays.keys() or (output.first_token and not first_token):
            return None
        self._outputs.move_to_end(key)
        return output

    def put(self, key: Key, output: TrunkOutput) -> None:
        """Keep an output, unless it alone is larger than the cache."""
        nbytes = memory_of(key, output)
        if nbytes > self.max_bytes:
            return
        self._drop(key)
        self._outputs[key] = output
        self.nbytes += nbytes
        while self.nbytes > self.max_bytes:
            self._drop(next(iter(self._outputs)))

    def __len__(self) -> int:
        return len(self._outputs)

    def _drop(self, key: Key) -> None:
        output = self._outputs.pop(key, None)
        if output is not None:
            self.nbytes -= memory_of(key, output)


def memory_of(key: Key, output: TrunkOutput) -> int:
    """Return the bytes that evicting an entry frees: its arrays and its input, which can be the larger part."""
    return sys.getsizeof(key[1]) + output.nbytes

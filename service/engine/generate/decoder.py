"""Define what generation needs of a runner: passes over segments of sequences, and a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.host import AdapterHost


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens of one sequence that one pass computes, under the adapter in `slot`.

    The first token stands at position `start`. The keys and values of all tokens before it are in `row` of the
    cache, and the pass adds those of the segment. `source` is the text that an encoder reads before the first
    segment of a row; the row keeps what the decoder needs of it.
    """

    row: int
    slot: int
    tokens: Sequence[int]
    start: int
    source: Sequence[int] = ()


class KvCache(Protocol):
    """The keys and values of sequences, one row for each.

    `capacity`, `used` and `kept` count tokens of room: of all rows at most, of the rows that passes use, and of
    those that are only copied.
    """

    @property
    def capacity(self) -> int: ...

    @property
    def used(self) -> int: ...

    @property
    def kept(self) -> int: ...

    def open(self, source: int = 0) -> int:
        """Return a new, empty row of a sequence whose source has so many tokens."""
        ...

    def extend(self, row: int, length: int) -> bool:
        """Make room for the source of a row and for `length` tokens. Return False if the cache is too full.

        The row then keeps the room that it has. An empty cache has room for a source and tokens that are together
        no more than its capacity.
        """
        ...

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy the first `length` tokens of a row into another one, which has room for them."""
        ...

    def keep(self, row: int, length: int) -> bool:
        """Keep the first `length` tokens of a row for copies, and take the row out of the passes' use.

        Return False, and change nothing, if the cache is too full.
        """
        ...

    def close(self, row: int) -> None:
        """Free a row."""
        ...


class Decoder(AdapterHost, Protocol):
    """A runner that generates. Only one thread at a time calls it."""

    name: str
    precision: str

    @property
    def cache(self) -> KvCache: ...

    def run(self, segments: Sequence[Segment]) -> Array:
        """Return the logits after the last token of each segment: (segments, vocabulary) fp32."""
        ...

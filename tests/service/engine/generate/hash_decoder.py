"""A decoder whose next token is a hash of the adapter's digest, of its source and of all tokens before it.

Any mix-up of rows, slots, positions or cache contents gives another answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from rootstock.adapters.spec import Adapter, AdapterWeights, Array, HeadSpec, Preprocessing
from rootstock.service.engine.generate.decoder import Segment

VOCABULARY = 97


def make_adapter(digest: str) -> Adapter:
    return Adapter(
        digest=digest,
        task="text-generation",
        problem_type=None,
        labels=(),
        head=HeadSpec("causal-lm", "Hash"),
        preprocessing=Preprocessing(4096),
        weights=AdapterWeights({}, {}),
    )


def next_token(digest: str, tokens: Sequence[int], source: Sequence[int] = ()) -> int:
    """Return the token that the decoder puts first after these."""
    data = hashlib.sha256(f"{digest}:{list(tokens)}:{list(source)}".encode()).digest()
    return int.from_bytes(data[:4], "little") % VOCABULARY


def greedy(digest: str, prompt: Sequence[int], most: int, source: Sequence[int] = ()) -> list[int]:
    """Return the answer that a sequence must have, whatever else runs."""
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(next_token(digest, tokens, source))
    return tokens[len(prompt) :]


class HashCache:
    """A cache of the tokens themselves, with room in steps of 8 for those of source and answer together."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[int, list[int]] = {}
        self.sources: dict[int, Sequence[int] | None] = {}
        self._lengths: dict[int, int] = {}
        self._room: dict[int, int] = {}
        self._kept: dict[int, int] = {}
        self._numbers = count()

    @property
    def used(self) -> int:
        return sum(self._room.values())

    @property
    def kept(self) -> int:
        return sum(self._kept.values())

    def open(self, source: int = 0) -> int:
        row = next(self._numbers)
        self.rows[row], self._room[row] = [], 0
        self.sources[row], self._lengths[row] = None, source
        return row

    def extend(self, row: int, length: int) -> bool:
        room = max(self._room[row], -(-(self._lengths[row] + length) // 8) * 8)
        if self.used + self.kept - self._room[row] + room > self.capacity:
            return False
        self._room[row] = room
        return True

    def copy(self, source: int, row: int, length: int) -> None:
        assert length <= min(len(self.rows[source]), self._room[row])
        assert not self._lengths[source], "keys and values after a source depend on it"
        self.rows[row], self.sources[row] = self.rows[source][:length], ()

    def keep(self, row: int, length: int) -> bool:
        if self.used + self.kept + length > self.capacity:
            return False
        del self._room[row]
        self.rows[row], self._kept[row] = self.rows[row][:length], length
        return True

    def close(self, row: int) -> None:
        del self.rows[row], self.sources[row], self._lengths[row]
        if self._room.pop(row, None) is None:
            del self._kept[row]

    def write(self, segment: Segment) -> tuple[list[int], Sequence[int]]:
        """Add a segment, and return the tokens and the source of its row."""
        row, held = segment.row, self.rows[segment.row]
        assert len(held) == segment.start
        assert bool(segment.start) == (self.sources[row] is not None), (
            "a source is read once, with the first segment"
        )
        source = self.sources[row] = self.sources[row] if segment.start else segment.source
        assert source is not None
        assert len(source) == self._lengths[row]
        held += segment.tokens
        assert len(source) + len(held) <= self._room[row]
        return held, source


class HashDecoder:
    """A decoder behind the engine's own seam. `watch` sees every pass before it runs."""

    name = "hash"
    precision = "fp32"

    def __init__(self, slots: int, capacity: int, watch: Callable[[Sequence[Segment]], None]) -> None:
        self.slots = slots
        self.cache = HashCache(capacity)
        self.placed: dict[int, str] = {}
        self._watch = watch

    def warm(self, adapter: Adapter) -> None: ...

    def stage(self, adapter: Adapter) -> str:
        return adapter.digest

    def place(self, slot: int, staged: str) -> None:
        self.placed[slot] = staged

    def clear(self, slot: int) -> None:
        del self.placed[slot]

    def run(self, segments: Sequence[Segment]) -> Array:
        self._watch(segments)
        logits = np.zeros((len(segments), VOCABULARY), np.float32)
        for i, segment in enumerate(segments):
            logits[i, next_token(self.placed[segment.slot], *self.cache.write(segment))] = 1
        return logits

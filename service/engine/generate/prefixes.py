"""Let sequences of one adapter that begin with the same tokens copy the keys and values of these."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rootstock.service.engine.generate.decoder import KvCache
from rootstock.service.engine.generate.sequence import TextSequence

Tokens = npt.NDArray[np.int64]
# An adapter's digest and a tenant.
Sharer = tuple[str, str]

# Sequences share at least this many tokens, or nothing.
WORTH = 16
# At most this many ended sequences are kept, in at most this share of the cache.
MOST = 256
SHARE = 0.5


class PrefixCache:
    """The rows that a new sequence may copy its first tokens from: those in use, and those kept after their end.

    Keys and values depend on the adapter, so only sequences of one digest share them. Tenants do not share,
    because the time to the first token would tell one what another asked. Sequences that verify an adapter share
    nothing, and neither do those with a source, on which their keys and values depend. When room is needed, the
    rows that were copied least recently go first. vLLM and SGLang (Zheng et al. 2023, RadixAttention) share
    blocks in place. Here a row is copied, so that the rows of a slab stay together.
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._live: dict[Sharer, dict[TextSequence, Tokens]] = {}
        self._kept: OrderedDict[int, tuple[Sharer, Tokens]] = OrderedDict()

    def add(self, sequence: TextSequence) -> None:
        """Note a sequence that has got a row."""
        self._live.setdefault(_sharer(sequence), {})[sequence] = _array(sequence.prompt)

    def free(self, sequence: TextSequence) -> None:
        """Free a sequence's row."""
        if sequence.row is not None:
            self._forget(sequence)
            self._cache.close(sequence.row)
            sequence.row, sequence.computed = None, 0

    def keep(self, sequence: TextSequence) -> None:
        """Keep the row of a sequence that has ended, or free it if it is of no use or there is no room."""
        row, length = sequence.row, sequence.computed
        if row is None or not sequence.shares or not WORTH <= length <= SHARE * self._cache.capacity:
            self.free(sequence)
            return
        sharer, tokens = _sharer(sequence), _array([*sequence.prompt, *sequence.tokens])[:length]
        for other, (owner, held) in list(self._kept.items()):
            if owner == sharer and (shared := _shared(held, tokens)) == min(len(held), length):
                if shared == length:
                    self._kept.move_to_end(other)
                    self.free(sequence)
                    return
                self._close(other)
        while len(self._kept) >= MOST or self._cache.kept + length > SHARE * self._cache.capacity:
            self.evict()
        while not self._cache.keep(row, length):
            if not self.evict():
                self.free(sequence)
                return
        self._forget(sequence)
        sequence.row, sequence.computed = None, 0
        self._kept[row] = sharer, tokens

    def evict(self) -> bool:
        """Free the kept row that was copied least recently. Return False if there is none."""
        if not self._kept:
            return False
        self._close(next(iter(self._kept)))
        return True

    def reuse(self, sequence: TextSequence) -> None:
        """Copy the longest prefix of a sequence's prompt that is longer than what it has computed.

        The last token of the prompt is always left to compute, because the first token of the answer needs its
        logits.
        """
        if sequence.row is None or not sequence.shares:
            return
        sharer = _sharer(sequence)
        prompt = self._live[sharer][sequence][:-1]
        best, source = max(sequence.computed, WORTH - 1), None
        for other, tokens in self._live.get(sharer, {}).items():
            if other is not sequence and other.shares and min(other.computed, len(tokens)) > best:
                length = min(other.computed, _shared(tokens, prompt))
                if length > best:
                    best, source = length, other.row
        for row, (owner, tokens) in self._kept.items():
            if owner == sharer and len(tokens) > best and (length := _shared(tokens, prompt)) > best:
                best, source = length, row
        if source is None:
            return
        if source in self._kept:
            self._kept.move_to_end(source)
        self._cache.copy(source, sequence.row, best)
        sequence.computed = best
        if not sequence.tokens:
            sequence.reused = best

    def gains(self, sequence: TextSequence, others: Iterable[TextSequence]) -> bool:
        """Tell whether a sequence could soon copy tokens from one of these, whose prompts are being computed."""
        if not sequence.shares:
            return False
        prompts = self._live[_sharer(sequence)]
        alike = (prompts[other] for other in others if other in prompts and other.shares)
        return any(_shared(prompts[sequence][:-1], one) >= sequence.computed + WORTH for one in alike)

    def _forget(self, sequence: TextSequence) -> None:
        sharer = _sharer(sequence)
        del self._live[sharer][sequence]
        if not self._live[sharer]:
            del self._live[sharer]

    def _close(self, row: int) -> None:
        del self._kept[row]
        self._cache.close(row)


def _sharer(sequence: TextSequence) -> Sharer:
    return sequence.digest, sequence.tenant


def _array(tokens: Sequence[int]) -> Tokens:
    return np.asarray(tokens, np.int64)


def _shared(one: Tokens, other: Tokens) -> int:
    """Return how many first tokens are the same."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length

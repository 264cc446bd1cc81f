"""Finds texts that are nearly the same as others, by the sequences of letters that they share (MinHash)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from rootstock.training.data.example import normalised
from rootstock.training.errors import extra

# From this share of common sequences on, two texts count as near copies.
LIKE = 0.8
_LETTERS = 3
# Bands and rows of the signatures: a pair at LIKE is missed once in 20,000, and one at 0.3 compared in 6 of 100.
_BANDS, _ROWS = 25, 5
# The most texts that one is compared with. Data made from a template has thousands of copies of each text.
_MOST = 200


class NearCopy(NamedTuple):
    """An earlier text, by its position, and its likeness: the share of common sequences (Jaccard's index)."""

    position: int
    likeness: float


class NearCopyIndex:
    """The texts so far, in which near copies of another text are found without comparing it with each.

    Case, spacing and Unicode form make no difference, and equal texts are no near copies.
    Raise MissingExtra without datasketch.
    Source: Broder, "On the Resemblance and Containment of Documents", 1997.
    """

    def __init__(self) -> None:
        with extra("checks for near copies"):
            from datasketch import MinHashLSH

        self._candidates: Any = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
        self._texts: list[str] = []

    def add(self, text: str) -> list[NearCopy]:
        """Return the near copies of a text among the earlier ones, and keep the text."""
        signature = _signature(text := normalised(text))
        found = self._found(text, signature)
        self._candidates.insert(len(self._texts), signature, check_duplication=False)
        self._texts.append(text)
        return found

    def find(self, text: str) -> list[NearCopy]:
        """Return the near copies of a text among those kept, in their order."""
        return self._found(text := normalised(text), _signature(text))

    def _found(self, text: str, signature: Any) -> list[NearCopy]:
        own = _sequences(text)
        found = []
        for position in sorted(self._candidates.query(signature))[:_MOST]:
            if (other := self._texts[position]) != text:
                theirs = _sequences(other)
                likeness = len(own & theirs) / len(own | theirs)
                if likeness >= LIKE:
                    found.append(NearCopy(position, likeness))
        return found


def near_copies_of(texts: Sequence[str], originals: Sequence[str]) -> dict[int, NearCopy]:
    """Return the closest near copy among `originals` of each of `texts` that has one, by the text's position."""
    index = NearCopyIndex()
    for text in originals:
        index.add(text)
    found = ((number, index.find(text)) for number, text in enumerate(texts))
    return {number: max(copies, key=lambda one: one.likeness) for number, copies in found if copies}


def _sequences(text: str) -> set[str]:
    return {text[at : at + _LETTERS] for at in range(max(1, len(text) - _LETTERS + 1))}


def _signature(text: str) -> Any:
    from datasketch import MinHash

    # The order of a set depends on the process, and that of the signature's minima does not.
    signature = MinHash(num_perm=_BANDS * _ROWS, hashfunc=zlib.crc32)
    signature.update_batch([sequence.encode() for sequence in _sequences(text)])
    return signature

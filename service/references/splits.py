"""The choice of the version that answers a request whose reference names an alias with a split."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from rootstock.adapters.registry import Resolution, SplitCandidate

# The versions that the request under way got from splits, each with its digest.
Chosen = set[tuple[int, str]]
_CHOSEN: ContextVar[Chosen | None] = ContextVar("chosen", default=None)
# The 64 bits of a hash are rounded down to 53, which a float holds, so that no place becomes 100.
_PARTS = 1 << 53


def place_of(stored: str, alias: str, sticky: str) -> float:
    """Return the place of a key among an alias's requests, from 0 to just below 100.

    Keys have evenly spread places, and each alias of each adapter orders them anew: the first requests of one
    split are not those of the next.
    """
    digest = hashlib.sha256(f"{stored}\n{alias}\n{sticky}".encode("utf-8", "surrogatepass")).digest()
    part = int.from_bytes(digest[:8], "big") >> 11
    return part * (100.0 / _PARTS)


def candidate_at(resolution: Resolution, place: float) -> SplitCandidate | None:
    """Return the candidate that answers at a place from 0 to 100; None for the version that the alias points at.

    Candidates take their percents from 0 upwards, in order of version number.
    """
    end = 0.0
    for candidate in resolution.candidates:
        end += candidate.percent
        if place < end:
            return candidate
    return None


@contextmanager
def noting(chosen: Chosen) -> Iterator[None]:
    """Add the versions that splits choose to `chosen`, for a request that is handled in the block."""
    token = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


class SplitChoice:
    """The choice among the versions of a split, for the foundations that a server hosts.

    `hosted` tells whether it hosts a fingerprint. A server that does not host a candidate's foundation lets the
    version answer that the alias points at, calls `replaced`, and logs the first such request of each version.
    """

    def __init__(self, hosted: Callable[[str | None], bool], replaced: Callable[[], None]) -> None:
        self._hosted = hosted
        self._replaced = replaced
        self._told: set[tuple[str, int]] = set()

    def choose(self, resolution: Resolution, sticky: str) -> Resolution:
        """Return the version that answers: equal keys get equal versions on every server that hosts them.

        An empty key gets a random place.
        """
        stored = resolution.stored or resolution.name
        place = place_of(stored, resolution.alias or "", sticky or secrets.token_hex(8))
        candidate = candidate_at(resolution, place)
        if candidate is not None and not self._hosted(candidate.foundation):
            self._tell(stored, candidate)
            candidate = None
        answering = resolution if candidate is None else resolution.as_candidate(candidate)
        if (chosen := _CHOSEN.get()) is not None:
            chosen.add((answering.version, answering.digest))
        return answering

    def _tell(self, stored: str, candidate: SplitCandidate) -> None:
        self._replaced()
        if (stored, candidate.version) not in self._told:
            self._told.add((stored, candidate.version))
            structlog.get_logger().warning(
                "candidate not hosted", adapter=stored, version=candidate.version, foundation=candidate.foundation
            )

"""The choice of the version that answers a request whose reference names an alias with a split."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import structlog

from rootstock.adapters.registry import Resolution, SplitCandidate

# The parts of 1 that a hash is rounded down to: as many as a float tells apart, so that none becomes 1.
_PARTS_BITS = 53


def place_of(stored: str, alias: str, sticky: str) -> float:
    """Return the place of a key among an alias's requests, from 0 to just below 100.

    Keys have evenly spread places, and each alias of each adapter orders them anew: the first requests of one
    split are not those of the next.
    """
    digest = hashlib.sha256(f"{stored}\n{alias}\n{sticky}".encode("utf-8", "surrogatepass")).digest()
    part = int.from_bytes(digest[:8], "big") >> (64 - _PARTS_BITS)
    return part * (100.0 / 2**_PARTS_BITS)


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
        if candidate is None:
            return resolution
        if not self._hosted(candidate.foundation):
            self._tell(stored, candidate)
            return resolution
        return resolution.as_candidate(candidate)

    def _tell(self, stored: str, candidate: SplitCandidate) -> None:
        self._replaced()
        if (stored, candidate.version) not in self._told:
            self._told.add((stored, candidate.version))
            structlog.get_logger().warning(
                "candidate not hosted", adapter=stored, version=candidate.version, foundation=candidate.foundation
            )

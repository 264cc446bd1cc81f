"""The policies by which a router, simulated or real, chooses the replica of a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice
from math import ceil
from typing import Protocol

import numpy as np
import numpy.typing as npt

_CHUNK = 4096


class RoutingPolicy(Protocol):
    """A rule for the replica of a request.

    `waiting` has the requests under way by replica, and `up` the replicas that take requests, in ascending order.
    """

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int: ...


class RandomReplica:
    """Any replica, by chance."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - traffic, not secrets

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return a random replica."""
        return up[int(self._dice.random() * len(up))]


class RoundRobin:
    """The replicas in turn."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return the replica after the last one."""
        self._turn += 1
        return up[self._turn % len(up)]


class LeastOutstanding:
    """The replica with the fewest requests under way. Equal ones take turns."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return the least busy replica."""
        fewest = min(waiting[one] for one in up)
        begin = self._turn = (self._turn + 1) % len(up)
        return next(up[i - len(up)] for i in range(begin, begin + len(up)) if waiting[up[i - len(up)]] == fewest)


class Rendezvous:
    """The first replica of the adapter's ranking that takes requests (highest random weight).

    Source: Thaler and Ravishankar 1998. If a replica leaves, only its adapters move.
    """

    def __init__(self, adapters: int, replicas: int, seed: int) -> None:
        self._ranking = rankings(adapters, replicas, seed)
        self._replicas = replicas

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return the adapter's replica."""
        return self.first(adapter, up, 1)[0]

    def first(self, adapter: int, up: Sequence[int], most: int) -> list[int]:
        """Return the first `most` replicas of the ranking that take requests."""
        ranking: npt.NDArray[np.uint16] = self._ranking[adapter]
        if len(up) == self._replicas:
            first: list[int] = ranking[:most].tolist()
            return first
        there = set(up)
        return list(islice((one for one in ranking.tolist() if one in there), most))


class RendezvousTwoChoices(Rendezvous):
    """The first replica of the ranking; if it is hot, the less busy of two among the first `spread`.

    A replica is hot if more than `hot` requests are under way in it and more than `excess` times the mean of all.
    """

    def __init__(
        self, adapters: int, replicas: int, seed: int, spread: int = 3, hot: int = 16, excess: float = 1.25
    ) -> None:
        super().__init__(adapters, replicas, seed)
        self._dice = random.Random(seed)  # noqa: S311 - traffic, not secrets
        self._spread, self._hot, self._excess = spread, hot, excess

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return the adapter's replica, or one near it in the ranking."""
        near = self.first(adapter, up, self._spread)
        most = waiting[near[0]]
        if len(near) == 1 or most <= self._hot or most <= self._excess * sum(waiting) / len(up):
            return near[0]
        one, other = self._dice.sample(near, 2)
        return min(one, other, key=waiting.__getitem__)


class RendezvousBounded(Rendezvous):
    """The first replica of the ranking that is not full: consistent hashing with bounded loads.

    Source: Mirrokni, Thorup and Zadimoghaddam 2018. A replica is full if the requests under way in it, this one
    included, are more than `excess` times their mean over all, rounded up, and more than `least`. A hot adapter
    so lies in as many replicas as it needs.
    """

    def __init__(self, adapters: int, replicas: int, seed: int, excess: float = 1.5, least: int = 6) -> None:
        super().__init__(adapters, replicas, seed)
        self._excess, self._least = excess, least

    def choose(self, adapter: int, waiting: Sequence[int], up: Sequence[int]) -> int:
        """Return the first replica with room."""
        most = max(self._least, ceil(self._excess * (sum(waiting) + 1) / len(up)))
        (own,) = self.first(adapter, up, 1)
        if waiting[own] + 1 <= most:
            return own
        # Those that do not take requests may still have some, so that all others may be full.
        return next((r for r in self.first(adapter, up, len(up)) if waiting[r] + 1 <= most), own)


# Makes a policy for so many adapters and replicas, by a seed.
_POLICIES: dict[str, Callable[[int, int, int], RoutingPolicy]] = {
    "random": lambda adapters, replicas, seed: RandomReplica(seed),
    "round-robin": lambda adapters, replicas, seed: RoundRobin(),
    "least-outstanding": lambda adapters, replicas, seed: LeastOutstanding(),
    "rendezvous": Rendezvous,
    "rendezvous-two-choices": RendezvousTwoChoices,
    "rendezvous-bounded": RendezvousBounded,
}
POLICIES = tuple(_POLICIES)


def policy_of(name: str, adapters: int, replicas: int, seed: int) -> RoutingPolicy:
    """Return a policy by its name in `POLICIES`."""
    return _POLICIES[name](adapters, replicas, seed)


def rankings(adapters: int, replicas: int, seed: int) -> npt.NDArray[np.uint16]:
    """Return, for each adapter, all replicas in descending order of a random weight of the two."""
    columns = _mixed(np.arange(replicas, dtype=np.uint64) + np.uint64(seed << 32))
    ranked = np.empty((adapters, replicas), np.uint16)
    for begin in range(0, adapters, _CHUNK):
        rows = _mixed(np.arange(begin, min(adapters, begin + _CHUNK), dtype=np.uint64))
        weights = _mixed(rows[:, None] ^ columns[None, :])
        ranked[begin : begin + len(rows)] = np.argsort(weights, axis=1)[:, ::-1]
    return ranked


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return numbers that look random: the output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

"""The choice of a replica for the adapters that a request names, by rendezvous hashing."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

# The names of a request that count; a request for more is as well placed by these.
_MOST_NAMES = 16


def ranking(names: Sequence[str], replicas: Sequence[str]) -> list[str]:
    """Return the replicas, the best first, for a request that names these adapters.

    Each name prefers the replica that scores highest with it. The replica that most names prefer comes first, and
    the scores of all names together order the others. If a replica leaves, only the names that preferred it move.
    If one joins, only names that now prefer it move.
    """
    counted = sorted(set(names))[:_MOST_NAMES]
    votes = dict.fromkeys(replicas, 0)
    if len(counted) > 1:
        for name in counted:
            votes[max(replicas, key=lambda replica, name=name: _score(name, replica))] += 1  # type: ignore[misc]
    key = "\n".join(counted)
    return sorted(replicas, key=lambda replica: (votes[replica], _score(key, replica)), reverse=True)


@lru_cache(maxsize=2**16)
def _score(name: str, replica: str) -> bytes:
    """Return a number that looks random, and is the same in every process."""
    return blake2b(f"{name}\0{replica}".encode(), digest_size=8).digest()


@dataclass(frozen=True)
class AdapterAffinity:
    """The rule by which a request gets its replicas.

    A request goes to the first replica of its ranking, which holds the adapter. That replica is hot if more than
    `hot` requests wait in it and it has more than `excess` times the mean of all. Then the shorter queue of two
    among the first `spread` of the ranking takes the request, so that a hot adapter lies in that many replicas.
    """

    spread: int = 3
    hot: int = 16
    excess: float = 1.25

    def choose(self, names: Sequence[str], queues: Mapping[str, int], dice: random.Random) -> list[list[str]]:
        """Return groups of replicas to try in turn; the shortest queue of a group takes the request.

        `queues` has the requests under way in each replica. Without names any two replicas do.
        """
        replicas = list(queues)
        if not names:
            dice.shuffle(replicas)
            return [replicas[:2], replicas[2:]]
        ranked = ranking(names, replicas)
        near, far = ranked[: self.spread], ranked[self.spread :]
        if self._is_hot(ranked[0], queues) and len(near) > 1:
            pair = dice.sample(near, 2)
            return [pair, [replica for replica in near if replica not in pair], far]
        return [[ranked[0]], near[1:], far]

    def _is_hot(self, replica: str, queues: Mapping[str, int]) -> bool:
        mean = sum(queues.values()) / len(queues)
        return queues[replica] > self.hot and queues[replica] > self.excess * mean

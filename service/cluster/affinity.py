"""The choice of a replica for the adapters that a request names, by rendezvous hashing."""

from __future__ import annotations

import math
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
    """The rule by which a request gets its replicas: consistent hashing with bounded loads.

    A request goes to the first replica of its ranking that is not full. A replica is full if the requests under
    way in it, this one included, are more than `least` and more than `excess` times their mean over all replicas,
    rounded up. A hot adapter so lies in as many replicas as it needs, and each other adapter in one.

    Source: Mirrokni, Thorup and Zadimoghaddam 2018.
    """

    least: int = 6
    excess: float = 1.5

    def choose(self, names: Sequence[str], queues: Mapping[str, int], dice: random.Random) -> list[list[str]]:
        """Return groups of replicas to try in turn; the shortest queue of a group takes the request.

        `queues` has the requests under way in each replica. Without names any two replicas do.
        """
        replicas = list(queues)
        if not names:
            dice.shuffle(replicas)
            return [replicas[:2], replicas[2:]]
        most = self.bound(queues)
        first, *others = sorted(ranking(names, replicas), key=lambda replica: queues[replica] + 1 > most)
        return [[first], others]

    def bound(self, queues: Mapping[str, int]) -> int:
        """Return the most requests that a replica may have under way with the new one."""
        # Rounded up, so that there is always a replica with room.
        return max(self.least, math.ceil(self.excess * (sum(queues.values()) + 1) / len(queues)))

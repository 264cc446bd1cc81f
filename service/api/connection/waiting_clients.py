"""The connections that wait for their clients, and the choice of the one to close when there are too many."""

from __future__ import annotations

import resource
import time
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog

# The most connections of a process, if the limit on open files allows so many.
MOST_CONNECTIONS = 4096
# The files that the process keeps for the registry, the store, downloads and libraries.
_KEPT_FILES = 256
_FEWEST_CONNECTIONS = 64
# The log names a full server once in this many seconds, because the cause may be a flood.
_LOG_SECONDS = 60.0


class WaitingConnection(Protocol):
    """A connection whose client has not sent a whole request."""

    def close_early(self) -> None:
        """Close the connection without an answer."""
        ...


class WaitingClients:
    """The connections of one server that wait for their clients, the longest wait first.

    `_new` wait for the end of their first head. `_others` wait for the end of a body, or for a further request.
    """

    def __init__(self) -> None:
        self._new: dict[WaitingConnection, None] = {}
        self._others: dict[WaitingConnection, None] = {}
        self._logged = -_LOG_SECONDS

    def for_first_head(self, connection: WaitingConnection) -> None:
        """Note that a connection waits for its first request."""
        self._new.setdefault(connection)

    def for_next(self, connection: WaitingConnection) -> None:
        """Note that a connection waits for the rest of a body, or for a request after its first."""
        self._new.pop(connection, None)
        self._others.setdefault(connection)

    def remove(self, connection: WaitingConnection) -> None:
        """Forget a connection that waits no longer."""
        self._new.pop(connection, None)
        self._others.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection that has waited longest, and return true; false if none waits.

        One that waits for its first head comes before all others: a flood of such connections then closes its
        own, and neither an upload nor a client that has just read an answer.
        """
        victim = next(iter(self._new or self._others), None)
        if victim is None:
            return False
        self.remove(victim)
        victim.close_early()
        return True

    def log_full(self, most: int) -> None:
        """Log that the server has as many connections as it takes."""
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            structlog.get_logger().warning("as many connections as the server takes", connections=most)


_OF_SERVER: WeakKeyDictionary[object, WaitingClients] = WeakKeyDictionary()


def waiting_clients(server: object) -> WaitingClients:
    """Return the waiting connections of a server; a process of tests runs several servers."""
    clients = _OF_SERVER.get(server)
    if clients is None:
        clients = _OF_SERVER[server] = WaitingClients()
    return clients


def most_connections() -> int:
    """Return the most connections of this process, which its limit on open files may lower."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(_FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, files - _KEPT_FILES))

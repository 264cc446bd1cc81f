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

    `heads` wait for the end of a request's headers, or for a request at all. `bodies` wait for the end of a body.
    """

    def __init__(self) -> None:
        self._heads: dict[WaitingConnection, None] = {}
        self._bodies: dict[WaitingConnection, None] = {}
        self._logged = -_LOG_SECONDS

    def for_head(self, connection: WaitingConnection) -> None:
        """Note that a connection waits for a request."""
        self._bodies.pop(connection, None)
        self._heads.setdefault(connection)

    def for_body(self, connection: WaitingConnection) -> None:
        """Note that a connection waits for the rest of a body."""
        self._heads.pop(connection, None)
        self._bodies.setdefault(connection)

    def remove(self, connection: WaitingConnection) -> None:
        """Forget a connection that waits no longer."""
        self._heads.pop(connection, None)
        self._bodies.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection that has waited longest, and return true; false if none waits.

        One that waits for a head comes before those that wait for a body: a flood of such connections then closes
        its own first, and not an upload.
        """
        victim = next(iter(self._heads or self._bodies), None)
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

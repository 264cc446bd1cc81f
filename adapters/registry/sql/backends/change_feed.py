"""A thread that learns from PostgreSQL of every change that another program makes to the registry."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from rootstock.adapters.registry.sql.resolutions import Resolutions

# Seconds between two questions for the revision. PostgreSQL notifies at once; the question finds what a broken
# connection or a pooler in between has swallowed, and whether the server is there.
POLL_SECONDS = 0.5
_RETRY_SECONDS = 0.25


class ChangeFeed:
    """A thread that drops stale resolutions as soon as PostgreSQL tells of a change (LISTEN and NOTIFY).

    `connect` returns a psycopg connection in autocommit. `changed` is called after a change by anyone, `reached`
    each time that the server answers, and `failed` with the error each time that it does not.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        resolutions: Resolutions,
        changed: Callable[[], None],
        reached: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._connect = connect
        self._resolutions = resolutions
        self._changed = changed
        self._reached = reached
        self._failed = failed
        self._stopping = False
        self._away = False
        self._seen: int | None = None
        self._waking, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="rootstock-registry", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        if self._stopping:
            return
        self._stopping = True
        self._wake.send(b"x")
        self._thread.join()
        self._waking.close()
        self._wake.close()

    def _run(self) -> None:
        while not self._stopping:
            try:
                with closing(self._connect()) as connection:
                    self._follow(connection)
            except Exception as error:  # Of any kind, because this thread alone finds that the server is back.
                if not self._away and not self._stopping:
                    logging.getLogger(__name__).warning("the registry's database is away: %s", _words(error))
                self._away = True
                self._failed(error)
                self._wait(None, _RETRY_SECONDS)

    def _follow(self, connection: Any) -> None:
        connection.add_notify_handler(self._notified)
        (number,) = connection.execute("SELECT CAST('revision' AS regclass)::oid::bigint").fetchone()
        # The name is of our making: a word and a number.
        connection.execute(f"LISTEN rootstock_{number}")
        while not self._stopping:
            before = self._resolutions.revision
            # The notices that came meanwhile are read first. Each of them drops only what it changed.
            (number,) = connection.execute("SELECT number FROM revision").fetchone()
            self._resolutions.refresh(number, before)
            self._reached()
            if self._away:
                self._away = False
                logging.getLogger(__name__).warning("the registry's database is back")
            if self._seen not in (None, number):
                self._changed()
            self._seen = number
            self._wait(connection, POLL_SECONDS)

    def _notified(self, notice: Any) -> None:
        number, _, name = notice.payload.partition(" ")
        if number.isdigit():
            self._resolutions.renew(int(number), name or None)

    def _wait(self, connection: Any, seconds: float) -> None:
        """Return when the server sends something, when `stop` is called, or after these seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._waking, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(seconds)


def _words(error: Exception) -> str:
    """Return the driver's own words in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())

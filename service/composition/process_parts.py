"""Opens what a process needs to serve a home together with others: its own home, and the page of all metrics."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.home.home import Home
    from rootstock.adapters.home.journal import BundleJournal
    from rootstock.adapters.registry import SqlRegistry
    from rootstock.service.api.server import Server
    from rootstock.service.pins import Pins

_PROGRAM = "a process of rootstock serve"
# Seconds between two looks: for an engine that has ended, and for changes that another process has made.
_LOOK_EVERY = 0.5


@contextmanager
def open_place(settings: Settings, home: Home) -> Iterator[Home]:
    """Yield the home with the marks of this process: the server's own, or one of several processes."""
    if settings.processes == 1:
        yield home
        return
    from rootstock.adapters.home.free_home import first_free

    with ExitStack() as stack:
        yield first_free(home.process, lambda place: stack.enter_context(place.hold(_PROGRAM)))


def take_marks(home: Home, place: Home, journal: BundleJournal) -> None:
    """Take over the marks that processes of this home have left, and that no process will find again.

    There may be fewer processes than before, or only one.
    """
    from rootstock.adapters.errors import HomeInUse

    for other in home.process_homes():
        if other.folder == place.folder:
            continue
        try:
            # One that is in use is that of a process that runs.
            with suppress(HomeInUse), other.hold(_PROGRAM):
                journal.take_over(other.pending_folder)
        except OSError as error:
            structlog.get_logger().warning(
                "marks of a process cannot be read", folder=str(other.folder), reason=error.strerror
            )
    if place is not home:
        journal.take_over(home.pending_folder)


@asynccontextmanager
async def serving_together(settings: Settings, home: Home, place: Home, server: Server) -> AsyncIterator[None]:
    """Let the processes of a server show one page of metrics, and end this one once its engine has ended."""
    if settings.processes == 1:
        yield
        return
    from rootstock.service.telemetry.process_pages import ProcessPages

    pages = ProcessPages(
        place.folder, lambda: [other.folder for other in home.process_homes()], server.own_metrics
    )
    server.all_metrics = pages.merged
    watching = asyncio.create_task(_end_with_the_engine(server))
    try:
        async with pages.listening():
            yield
    finally:
        watching.cancel()


@asynccontextmanager
async def following(settings: Settings, registry: SqlRegistry, pins: Pins) -> AsyncIterator[None]:
    """Let the pins follow what other processes change in a file, which tells nobody of it."""
    if settings.processes == 1 or settings.registry_address or not settings.pinned:
        yield
        return
    task = asyncio.create_task(_follow(registry, pins))
    try:
        yield
    finally:
        task.cancel()


async def _follow(registry: SqlRegistry, pins: Pins) -> None:
    seen = registry.revision
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = await asyncio.to_thread(lambda: registry.revision)
        if now != seen:
            seen = now
            pins.moved()


async def _end_with_the_engine(server: Server) -> None:
    # An engine tells nobody that its threads have ended.
    while not server.foundations.fallen:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY)
    structlog.get_logger().error("the engine has stopped after a fault; another process replaces this one")
    signal.raise_signal(signal.SIGTERM)

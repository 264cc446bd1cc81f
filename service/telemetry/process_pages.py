"""The metrics of the processes that serve one home together: any of them answers with the page of all."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.service.telemetry.merged_metrics import MetricsMerges

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The label of each series: the number of its process, which the one that replaces it takes over.
LABEL = "process"
# Seconds that a process may take for its page. Prometheus waits for ten by default.
_SECONDS = 2.0
_SOCKET = "metrics.sock"
# A page is whole if as many bytes follow as its head states. A process that is killed sends a part.
_HEAD = struct.Struct("!Q")
# The questions of one process to another: for the page of the operator, or for that of everyone.
_OPERATOR, _EVERYONE = b"o", b"e"

# Returns a process's own page, for the operator or for everyone.
OwnPage = Callable[[bool], Awaitable[bytes]]


class ProcessPages:
    """The pages of all processes of a server, which ask each other over Unix sockets in their homes.

    Only the server's user can reach these sockets. A process that starts, has ended or does not answer in time is
    left out of the page.
    """

    def __init__(self, folder: Path, folders: Callable[[], Sequence[Path]], own: OwnPage) -> None:
        """Take the home of this process, what returns those of all, and what makes this one's page."""
        self._folder = folder
        self._folders = folders
        self._own = own
        self._merges: MetricsMerges[bytes] = MetricsMerges(LABEL)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer the other processes until the end of the block."""
        path = self._folder / _SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            with _short(path) as address:
                listener.bind(address)
            async with await asyncio.start_unix_server(self._answer, sock=listener):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)

    async def merged(self, to_operator: bool) -> bytes:
        """Return one page with the series of all processes. Requests at the same time share one."""
        return await self._merges.shared(to_operator, lambda: self._merge(to_operator))

    async def _merge(self, to_operator: bool) -> bytes:
        folders = await asyncio.to_thread(self._folders)
        found = await asyncio.gather(*(self._page(folder, to_operator) for folder in folders))
        pages = {
            folder.name: page.decode() for folder, page in zip(folders, found, strict=True) if page is not None
        }
        return (await self._merges.merged(pages)).encode()

    async def _page(self, folder: Path, to_operator: bool) -> bytes | None:
        if folder == self._folder:
            return await self._own(to_operator)
        # A process that ends breaks the connection, or leaves a socket behind on which nobody listens.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_SECONDS):
                return await _asked(folder / _SOCKET, _OPERATOR if to_operator else _EVERYONE)
        return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            page = await self._own(await reader.readexactly(1) == _OPERATOR)
            writer.write(_HEAD.pack(len(page)) + page)
            await writer.drain()
        writer.close()


async def _asked(path: Path, question: bytes) -> bytes:
    with _short(path) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    try:
        writer.write(question)
        (size,) = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        return await reader.readexactly(size)
    finally:
        writer.close()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield an address of a socket's path, which the kernel limits to 107 bytes; a home's path may be longer."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

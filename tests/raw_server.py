"""A server whose answers are bytes that a test chooses, so that they may be wrong, endless or slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def plain(
    body: bytes, status: str = "200 OK", more: str = "", length: str = "", kind: str = "image/png"
) -> Answer:
    """Return an answer with a body. `more` are further header lines, and `kind` is the Content-Type."""

    async def send(writer: asyncio.StreamWriter) -> None:
        size = length or str(len(body))
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n"
        writer.write(head.encode() + body)

    return send


async def endless(writer: asyncio.StreamWriter) -> None:
    """Send a body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(b"x" * 2**16)
        await writer.drain()


async def slow(writer: asyncio.StreamWriter) -> None:
    """Send one byte of nine, and then nothing."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx")
    await asyncio.Event().wait()


@asynccontextmanager
async def raw_server(answer_to: Callable[[str], Answer]) -> AsyncIterator[tuple[int, list[str]]]:
    """Run a server on 127.0.0.1 that answers each path as `answer_to` says.

    Yield its port, and the list of the heads that it has read. Each connection has one request.
    """
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await answer_to(heads[-1].split()[1])(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

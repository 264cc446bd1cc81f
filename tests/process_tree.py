"""The processes that a server started, and the sockets on which they listen."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_LISTENS = "00010000"


@dataclass(frozen=True)
class Listeners:
    """The TCP ports and the paths of Unix sockets on which processes listen."""

    ports: frozenset[tuple[str, int]]
    paths: frozenset[str]

    @property
    def addresses(self) -> list[str]:
        """Return the addresses as ZeroMQ names them."""
        return [*(f"tcp://{host}:{port}" for host, port in self.ports), *(f"ipc://{path}" for path in self.paths)]


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process and all that it started, directly or not."""
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def listeners(process: subprocess.Popen[str]) -> Listeners:
    """Return every socket on which the process, or one that it started, listens now."""
    ports = set()
    inodes = set()
    for one in tree(process):
        for connection in one.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                ports.add((connection.laddr.ip, connection.laddr.port))
        for handle in Path(f"/proc/{one.pid}/fd").iterdir():
            target = str(handle.readlink()) if handle.is_symlink() else ""
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    # psutil does not tell which Unix sockets listen. The fields are address, count, protocol, flags, type, state,
    # inode and path.
    rows = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    paths = {row[7] for row in rows if len(row) == 8 and row[3] == _LISTENS and row[6] in inodes}
    return Listeners(frozenset(ports), frozenset(paths))

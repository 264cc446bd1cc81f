"""Runs `rootstock serve` as a process, on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.bounds import HANG

ROOTSTOCK = str(Path(sys.executable).parent / "rootstock")


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until_ready(process: subprocess.Popen[str]) -> None:
    """Return once the server's log says that it is ready. Fail the test if the server ends before that."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if '"event": "ready"' in line:
            return
    pytest.fail("the server ended: " + "".join(lines))


@contextmanager
def serving(
    home: Path,
    server: str,
    cwd: Path | None = None,
    log: list[str] | None = None,
    program: str = ROOTSTOCK,
    **settings: str,
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Start the server, yield its process and a client once its log says that it is ready; stop it at the end.

    `log` collects the lines that the server logs after that. Without it a server blocks once its lines fill
    the pipe, after some hundred requests.
    """
    port = free_port()
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home), **settings}
    command = [program, "serve", "--port", str(port), "--server", server]
    with subprocess.Popen(command, env=environment, cwd=cwd, stderr=subprocess.PIPE, text=True) as process:
        until_ready(process)
        assert process.stderr is not None
        if log is not None:
            threading.Thread(target=log.extend, args=(process.stderr,)).start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG) as client:
                yield process, client
        finally:
            process.send_signal(signal.SIGTERM)
            if log is None:
                process.stderr.read()
            process.wait(HANG)

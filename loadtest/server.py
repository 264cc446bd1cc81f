"""A `rootstock serve` process on a free port with a folder of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from adapters.foundation import fingerprint, locate
from loadtest.machine import ROOT
from service.exports import export_path

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0


class ServerFailed(Exception):
    """A server that did not start or stop: holds the end of its log."""


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    kind: str
    url: str
    pid: int


@contextmanager
def serving(kind: str, export: Path, threads: int, foundation: str = "default") -> Iterator[Served]:
    """A ready server under `kind` (bentoml or uvicorn) on an export made before; stopped by SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        linked = export_path(home, fingerprint(locate(foundation).folder))
        linked.parent.mkdir(parents=True)
        linked.symlink_to(export.absolute())
        port = _free_port()
        environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("ROOTSTOCK_")} | {
            "ROOTSTOCK_HOME": str(home),
            "ROOTSTOCK_FOUNDATION": foundation,
            "ROOTSTOCK_DEMO": "false",
            "ROOTSTOCK_LOG_LEVEL": "warning",
            "ROOTSTOCK_RUNNER": "onnx",
            "ROOTSTOCK_THREADS": str(threads),
        }
        command = [sys.executable, "-m", "adapters.console", "serve", "--server", kind, "--port", str(port)]
        log = home / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
            )
        try:
            served = Served(kind, f"http://127.0.0.1:{port}", process.pid)
            _wait_ready(served, process, log)
            yield served
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(served: Served, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_WITHIN_S
    with httpx.Client(base_url=served.url, trust_env=False) as http:
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            try:
                if http.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    state = "is not ready" if process.poll() is None else f"ended with exit code {process.returncode}"
    raise ServerFailed(f"rootstock serve --server {served.kind} {state}; its log ends:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

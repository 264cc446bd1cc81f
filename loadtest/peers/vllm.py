"""vLLM on a CPU, in a separate virtual environment: a peer of generated text under many adapters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rootstock.loadtest.fixtures.server import ServerProcess, free_port, server_process
from rootstock.loadtest.peers.peer_environment import PeerEnvironment

# Its builds of these do not fit its torch, and nothing here needs them.
VLLM = PeerEnvironment("vllm", "2 GB", ("torchaudio", "torchvision", "torchcodec"))
# Its command `vllm` looks for a distribution of this name, and the one for CPUs has another.
PROGRAM = "python"
_MODULE = "vllm.entrypoints.openai.api_server"
_CACHE_GIB = 2
# It compiles and warms up its passes at the start.
_READY_WITHIN_S = 600.0


@contextmanager
def vllm_server(
    program: Path, foundation: Path, adapters: Mapping[str, Path], rank: int, threads: int
) -> Iterator[ServerProcess]:
    """Start an OpenAI server of a model in a local folder, in fp32, with PEFT adapters by name."""
    port = free_port()
    arguments = {
        "--dtype": "float32",
        "--host": "127.0.0.1",
        "--port": port,
        "--max-model-len": 512,
        "--max-num-seqs": max(1, len(adapters)),
        "--max-loras": max(1, len(adapters)),
        "--max-lora-rank": rank,
        "--served-model-name": "foundation",
        "--uvicorn-log-level": "warning",
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    modules = [f"{name}={folder}" for name, folder in adapters.items()]
    command = [
        str(program),
        "-m",
        _MODULE,
        "--model",
        str(foundation),
        *flags,
        "--enforce-eager",
        "--enable-lora",
    ]
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:threads])
    environment = {
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": cores,
    }
    command += ["--lora-modules", *modules]
    with server_process(VLLM.name, command, port, environment, "/health", _READY_WITHIN_S) as server:
        yield server

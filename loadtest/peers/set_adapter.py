"""The peer of `vs-set-adapter`: the server of set_adapter_service.py, in a separate process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.adapters.bundle import Limits, unpack
from rootstock.loadtest.fixtures.server import ServerProcess, bento_server
from rootstock.loadtest.fixtures.workload import LABELS, Workload

# The variables of the server's environment.
FOUNDATION = "PEER_FOUNDATION"
ADAPTERS = "PEER_ADAPTERS"
THREADS_OF_TORCH = "PEER_THREADS"
NUMBER_OF_LABELS = "PEER_LABELS"


@contextmanager
def set_adapter_server(foundation: Path, workload: Workload, threads: int) -> Iterator[ServerProcess]:
    """Start the server with a workload's adapters."""
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as root:
        for name, data in zip(workload.names, workload.bundles, strict=True):
            folder = Path(root) / name
            folder.mkdir()
            for member, content in unpack(data, Limits()).items():
                (folder / member).write_bytes(content)
        environment = {
            FOUNDATION: str(foundation),
            ADAPTERS: root,
            NUMBER_OF_LABELS: str(LABELS),
            THREADS_OF_TORCH: str(threads),
        }
        service = "rootstock.loadtest.peers.set_adapter_service:SetAdapter"
        with bento_server("set_adapter", service, environment) as process:
            yield process

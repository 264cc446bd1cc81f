"""A real Ray on this machine, and `rootstock deploy ray` on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.bounds import HANG
from tests.object_storage import ObjectStorage
from tests.postgres_process import PostgresProcess
from tests.process_tree import tree
from tests.serve_process import ROOTSTOCK, free_port

RAY = str(Path(sys.executable).parent / "ray")
_MIB = 2**20


class RayCluster:
    """One Ray node, and the application that was deployed on it last."""

    def __init__(self, address: str, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.address = address
        self.port = free_port()
        self._process = process
        self._environment = environment
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=HANG)

    def deploy(self, *options: str, **settings: str) -> None:
        """Run `rootstock deploy ray`, and return once the replicas serve."""
        command = [ROOTSTOCK, "deploy", "ray", "--address", self.address, "--port", str(self.port), *options]
        environment = {**self._environment, **settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * HANG)
        assert done.returncode == 0, done.stderr

    @property
    def replicas(self) -> list[psutil.Process]:
        """Return the processes of the replicas, without those that are about to start."""
        found = []
        for process in tree(self._process):
            try:
                title = " ".join(process.cmdline())
                if "ray::ServeReplica:rootstock:replica" in title and ".initialize" not in title:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def ray_cluster(
    new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage
) -> Iterator[RayCluster]:
    """Start Ray with a registry and a store for the replicas; end all of it at the end."""
    # The paths of Ray's sockets are long, and those of the operating system may not be.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port = free_port()
    environment = {
        **os.environ,
        "ROOTSTOCK_HOME": str(new_home()),
        "ROOTSTOCK_REGISTRY_URL": postgres.new_schema(),
        "ROOTSTOCK_STORE_URL": f"s3://{s3.new_bucket()}/bundles",
        "ROOTSTOCK_DEMO": "false",
        "ROOTSTOCK_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": str(int(HANG)),
        "RAY_agent_register_timeout_ms": str(int(HANG * 1000)),
        # Ray makes its workers nicer than all others, and on a busy machine they would get no turn.
        "RAY_worker_niceness": "0",
        # A busy machine starts processes late.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(HANG),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
    }
    options = {
        "--port": port,
        "--num-cpus": 16,
        "--object-store-memory": 300 * _MIB,
        "--temp-dir": folder,
        "--node-ip-address": "127.0.0.1",
        "--include-dashboard": "false",
        "--ray-client-server-port": free_port(),
        "--dashboard-agent-listen-port": free_port(),
    }
    command = [RAY, "start", "--head", "--block", *(str(part) for pair in options.items() for part in pair)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
        )
        try:
            _wait(process, folder / "log")
            cluster = RayCluster(f"127.0.0.1:{port}", process, environment)
            yield cluster
            cluster.client.close()
        finally:
            started = tree(process) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            psutil.wait_procs(started, timeout=30)
            for one in started:
                try:
                    one.kill()
                except psutil.NoSuchProcess:
                    continue
            process.wait(HANG)
            shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + HANG
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)

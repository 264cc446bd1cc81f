"""Real replicas on this machine, each with a home that holds the same adapters, and clients that load them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.loadtest.cluster.window import ClientPlan, WindowFigures
from rootstock.loadtest.fixtures.registration import register
from rootstock.loadtest.fixtures.server import ServerProcess, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import sentences
from rootstock.loadtest.load.trial import GeneratorFailed
from rootstock.loadtest.measure.machine import ROOT
from rootstock.loadtest.measure.processes import pin
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

# The server computes equal inputs of one adapter once, so inputs seldom repeat.
_TEXTS = 4096
TOKENS = 16


@dataclass(frozen=True)
class AdapterHome:
    """A home with registered adapters, their names, and texts of `TOKENS` tokens."""

    folder: Path
    export: Path
    names: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class LiveCluster:
    """Real replicas that run, and the core of each."""

    servers: Sequence[ServerProcess]
    cores: Sequence[int]
    home: AdapterHome

    def load(
        self,
        policy: str,
        warm: int,
        seconds: float,
        clients: int = 0,
        rate: float = 0.0,
        seed: int = 0,
        adapters: int | None = None,
    ) -> WindowFigures:
        """Load the replicas and return the figures of a window. Raise GeneratorFailed if a request fails."""
        plan = ClientPlan(
            [int(server.url.rpartition(":")[2]) for server in self.servers],
            [server.pid for server in self.servers],
            self.home.names[:adapters],
            self.home.texts,
            policy,
            clients,
            rate,
            seed,
            warm,
            seconds,
        )
        done = subprocess.run(
            [sys.executable, "-m", "rootstock.loadtest.cluster.clients"],
            input=json.dumps(asdict(plan)),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode != 0:
            raise GeneratorFailed(f"the clients ended with exit code {done.returncode}: {done.stderr[-2000:]}")
        figures = WindowFigures(**json.loads(done.stdout))
        if figures.failed or not figures.answers:
            raise GeneratorFailed(f"{figures.failed} requests failed beside {figures.answers} answers")
        return figures


@contextmanager
def adapter_home(setup: BenchmarkSetup, adapters: int) -> Iterator[AdapterHome]:
    """Register adapters in a new home; remove it at the end."""
    spec = OnnxRunner(setup.export, 3, 1).spec
    texts = sentences(Tokenizer(setup.export / "tokenizer.json"), spec, _TEXTS, TOKENS)
    with TemporaryDirectory(prefix="rootstock-bench-") as folder:
        setup.say(f"registering {adapters} adapters")
        names = register(Path(folder), spec, adapters, setup.say)
        yield AdapterHome(Path(folder), setup.export, names, texts)


@contextmanager
def live_cluster(home: AdapterHome, replicas: int, settings: Mapping[str, str]) -> Iterator[LiveCluster]:
    """Start replicas of one thread under uvicorn, each on a copy of the home; stop them at the end.

    Each is pinned to a core, in turn. Otherwise the kernel lets two of them share a core while another is idle.
    """
    places = sorted(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="rootstock-bench-") as folder, ExitStack() as stack:
        servers, cores = [], []
        for i in range(replicas):
            copy = Path(folder) / str(i)
            # Bundles do not change, so links to them are copies.
            shutil.copytree(home.folder, copy, copy_function=_link_bundle)
            server = rootstock_server("uvicorn", home.export, 1, home=copy, settings=settings)
            servers.append(stack.enter_context(server))
            cores.append(places[i % len(places)])
            pin(servers[-1].pid, cores[-1])
        yield LiveCluster(servers, cores, home)


def _link_bundle(source: str, target: str) -> None:
    if "store" in Path(source).parts:
        os.link(source, target)
    else:
        shutil.copy2(source, target)

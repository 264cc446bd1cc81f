"""Real replicas on this machine, each with a home that holds the same adapters, and clients that load them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rootstock.loadtest.cluster.window import ClientPlan, WindowFigures
from rootstock.loadtest.fixtures.registration import register
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.server import ServerProcess, rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import sentences
from rootstock.loadtest.load.trial import GeneratorFailed
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.machine import ROOT
from rootstock.loadtest.measure.processes import pin
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

# The server computes equal inputs of one adapter once, so inputs seldom repeat.
_TEXTS = 4096
TOKENS = 16
REFERENCE_ROWS = 8
_REFERENCE_PASSES = 9


@dataclass(frozen=True)
class AdapterHome:
    """A home with registered adapters, their names, and texts of `TOKENS` tokens."""

    folder: Path
    export: Path
    names: Sequence[str]
    texts: Sequence[str]


class ReferencePass:
    """A forward pass whose CPU time says how fast the machine is now; other machines of its host change that."""

    def __init__(self, export: Path) -> None:
        self._bench = open_bench(export, TOKENS, 1)
        self._batch = self._bench.batch(self._bench.encoded[:REFERENCE_ROWS], range(1, REFERENCE_ROWS + 1))

    def seconds(self) -> float:
        """Return the CPU seconds of one pass."""
        return pass_seconds(self._bench.runner, self._batch)

    def ms(self) -> float:
        """Return its CPU milliseconds: the median of some passes on each core."""
        earlier, found = os.sched_getaffinity(0), []
        try:
            for core in earlier:
                os.sched_setaffinity(0, {core})
                found += [1e3 * self.seconds() for _ in range(_REFERENCE_PASSES)]
        finally:
            os.sched_setaffinity(0, earlier)
        return median_interval(found).median


def pass_seconds(runner: OnnxRunner, batch: Batch) -> float:
    """Return the CPU seconds of a forward pass."""
    begin = time.thread_time()
    runner.run(batch)
    return time.thread_time() - begin


@dataclass(frozen=True)
class LiveCluster:
    """Real replicas that run."""

    servers: Sequence[ServerProcess]
    home: AdapterHome
    reference: ReferencePass

    def load(
        self,
        policy: str,
        warm: int,
        seconds: float,
        clients: int = 0,
        rate: float = 0.0,
        seed: int = 0,
    ) -> WindowFigures:
        """Load the replicas and return the figures of a window. Raise GeneratorFailed if a request fails.

        The reference pass runs just before and just after the load.
        """
        plan = ClientPlan(
            [int(server.url.rpartition(":")[2]) for server in self.servers],
            [server.pid for server in self.servers],
            self.home.names,
            self.home.texts,
            policy,
            clients,
            rate,
            seed,
            warm,
            seconds,
        )
        before = self.reference.ms()
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
        return replace(figures, pass_ms=(before + self.reference.ms()) / 2)


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
def live_cluster(
    home: AdapterHome,
    replicas: int,
    settings: Mapping[str, str],
    reference: ReferencePass,
    cores: Sequence[int] = (),
) -> Iterator[LiveCluster]:
    """Start replicas of one thread under uvicorn, each on a copy of the home; stop them at the end.

    Each is pinned to one of the cores (by default of all cores), in turn. Otherwise the kernel lets two of them
    share a core while another is idle.
    """
    places = cores or sorted(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="rootstock-bench-") as folder, ExitStack() as stack:
        servers = []
        for i in range(replicas):
            copy = Path(folder) / str(i)
            # Bundles do not change, so links to them are copies.
            shutil.copytree(home.folder, copy, copy_function=_link_bundle)
            server = rootstock_server("uvicorn", home.export, 1, home=copy, settings=settings)
            servers.append(stack.enter_context(server))
            pin(servers[-1].pid, places[i % len(places)])
        yield LiveCluster(servers, home, reference)


def _link_bundle(source: str, target: str) -> None:
    if "store" in Path(source).parts:
        os.link(source, target)
    else:
        shutil.copy2(source, target)

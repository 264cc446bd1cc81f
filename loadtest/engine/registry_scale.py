"""The cost of ten thousand registered adapters: a server's memory and the time of a look-up."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.predictions import ClassificationResult
from rootstock.adapters.home.home import Home
from rootstock.adapters.spec import Array
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.popularity import choose
from rootstock.loadtest.fixtures.registration import digests_of, name_of, register
from rootstock.loadtest.fixtures.runner_bench import Bench, open_bench
from rootstock.loadtest.fixtures.server import rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup, Say
from rootstock.loadtest.fixtures.workload import RANK
from rootstock.loadtest.measure.agreement import Disagreement, require_equal
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.processes import NO_PROC_MEMORY, Memory, has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair

_NAME = "registry-scale"
_TOKENS = 32
# Distinct sentences, and the most popular adapters whose scores are compared with the runner's own.
_TEXTS = 16
_CLIENTS = 8
_LOOK_UPS = 2000
# An adapter takes some 320 kB in the store, and its bundle is on disk a second time during the import.
_BYTES_EACH = 400_000


@dataclass(frozen=True)
class RegistryLoad:
    """The number of registered adapters, of requests to a server, and of its starts."""

    adapters: int
    requests: int
    repeats: int


# A 95 % interval needs at least six repeats.
_FULL = RegistryLoad(adapters=10_000, requests=3000, repeats=6)
_QUICK = RegistryLoad(adapters=40, requests=60, repeats=1)


def registry_scale(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the memory and the look-ups of a registry of 10,000 adapters."""
    return registry_rows(setup, _QUICK if setup.quick else _FULL)


def registry_rows(setup: BenchmarkSetup, traffic: RegistryLoad) -> list[BenchmarkRow | NotRun]:
    """Measure a server's MB under Zipf traffic − those of one without adapters, and the p99 of look-ups."""
    count = traffic.adapters
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        needed, free = count * _BYTES_EACH, shutil.disk_usage(home).free
        if free < needed:
            reason = f"{home.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} are needed"
            return [NotRun(_NAME, f"{count} registered adapters", reason)]
        bench = open_bench(setup.export, _TOKENS, setup.threads, _TEXTS)
        setup.say(f"{_NAME}: registering {count} adapters")
        start = time.monotonic()
        names = register(home, bench.runner.spec, count, setup.say)
        import_seconds = time.monotonic() - start
        digests = digests_of(home, names)
        look_up = look_up_row(home, digests, setup.pairs, setup.say)
        if not has_proc():
            return [NotRun(_NAME, f"memory with {count} registered adapters", NO_PROC_MEMORY), look_up]
        full_home = _RegisteredHome(setup.export, setup.threads, home, digests, bench, bench.solo())
        return [_memory_row(full_home, traffic, import_seconds, setup.say), look_up]


@dataclass(frozen=True)
class _RegisteredHome:
    """A home with registered adapters, and the logits of the first of them for their sentences."""

    export: Path
    threads: int
    home: Path
    digests: Mapping[str, str]
    bench: Bench
    logits: list[Array]

    def empty(self, requests: int) -> Memory:
        """Return the memory of a server without adapters that has embedded as many texts."""

        def embed(client: Client, i: int) -> None:
            client.embed("foundation", self._text(i))

        return self._memory(None, requests, embed)

    def full(self, requests: int) -> tuple[Memory, int]:
        """Return the memory of a server after Zipf traffic, and the number of adapters that answered."""
        chosen = list(islice(choose(list(self.digests), "zipf"), requests))

        def predict(client: Client, i: int) -> None:
            digest = client.predict(chosen[i], self._text(i), ClassificationResult).digest
            if digest != self.digests[chosen[i]]:
                raise Disagreement(f"{digest} answered for {chosen[i]}, expected {self.digests[chosen[i]]}")

        return self._memory(self.home, requests, predict), len(set(chosen))

    def _memory(self, home: Path | None, requests: int, send: Callable[[Client, int], None]) -> Memory:
        settings = {"CACHE_MB": str(targets.CACHE_MIB)}
        with (
            rootstock_server("uvicorn", self.export, self.threads, home=home, settings=settings) as server,
            Client(server.url) as client,
            ThreadPoolExecutor(_CLIENTS) as pool,
        ):
            if home is not None:
                self._check(client)
            for _ in pool.map(lambda i: send(client, i), range(requests)):
                pass
            return memory(server.pid)

    def _check(self, client: Client) -> None:
        """Raise Disagreement unless the most popular adapters give the runner's logits."""
        for i, logits in enumerate(self.logits[: len(self.digests)]):
            answer = client.predict(
                name_of(i), self._text(i), ClassificationResult, top_k=None, function_to_apply="none"
            )
            scores = [score for _, score in sorted(answer.scores.items())]
            require_equal([np.array(scores, np.float32)], [logits], f"{name_of(i)} over HTTP against the runner")

    def _text(self, i: int) -> str:
        return self.bench.workload.sentences[i % _TEXTS]


def _memory_row(home: _RegisteredHome, traffic: RegistryLoad, import_seconds: float, say: Say) -> BenchmarkRow:
    pairs: list[Pair] = []
    proportional: list[Pair] = []
    distinct = 0
    for i in range(traffic.repeats):
        say(f"{_NAME}: traffic {i + 1} of {traffic.repeats}")
        if i % 2 == 0:
            full, distinct = home.full(traffic.requests)
            empty = home.empty(traffic.requests)
        else:
            empty = home.empty(traffic.requests)
            full, distinct = home.full(traffic.requests)
        pairs.append(Pair(full.resident, empty.resident))
        proportional.append(Pair(full.proportional, empty.proportional))
    count = traffic.adapters
    return BenchmarkRow(
        benchmark=_NAME,
        title=f"memory with {count} adapters under Zipf traffic − an empty server",
        top=f"resident memory of rootstock serve --server uvicorn (one process) with {count} "
        f"rank-{RANK} query/value adapters registered, after {traffic.requests} predictions by {_CLIENTS} "
        f"clients under {distinct} of them (Zipf)",
        bottom=f"the same of a server with an empty registry, after {traffic.requests} embeddings of the same "
        "texts",
        unit="MB",
        pairs=pairs,
        target=targets.REGISTRY_MB,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"target: the budget of {targets.CACHE_MB:.0f} MB (ROOTSTOCK_CACHE_MB={targets.CACHE_MIB}) and "
            f"{targets.SPARE_MB:.0f} MB",
            "every answer had the right digest; the most popular adapters' scores equal the runner's own",
            f"making and importing them took {import_seconds:.0f} s, {count / import_seconds:.0f} a second",
        ],
        extra={"proportional": [pair._asdict() for pair in proportional]},
    )


def look_up_row(home: Path, digests: Mapping[str, str], windows: int, say: Say) -> BenchmarkRow:
    """Measure the 99th percentile of look-ups by Zipf in the registry of `home`, one figure a window."""
    say(f"{_NAME}: {windows} windows of {_LOOK_UPS} look-ups")
    names = choose(list(digests), "zipf", seed=1)
    times = [_look_ups(Home(home), names, digests) for _ in range(windows)]
    median = median_interval([each for window in times for each in window]).median
    return BenchmarkRow(
        benchmark=_NAME,
        title=f"p99 of a registry look-up, {len(digests)} registered adapters",
        top=f"the 99th percentile of {_LOOK_UPS} calls of SqlRegistry.resolve (SQLite) of names by Zipf; the "
        "registry is opened anew for each window, so that a name's first look-up in it reads the database",
        bottom="",
        unit="ms",
        pairs=[Pair(float(np.percentile(window, 99))) for window in times],
        target=targets.LOOK_UP_MS,
        measure=Measure.TOP,
        at_most=True,
        notes=[f"the median is {median:.3f} ms; opening is not counted"],
    )


def _look_ups(home: Home, names: Iterator[str], digests: Mapping[str, str]) -> list[float]:
    """Return the milliseconds of each look-up of a window. Raise Disagreement if one is wrong."""
    times = []
    with closing(home.open_registry()) as registry:
        for name in islice(names, _LOOK_UPS):
            start = time.perf_counter()
            digest = registry.resolve(name).digest
            times.append((time.perf_counter() - start) * 1e3)
            if digest != digests[name]:
                raise Disagreement(f"{name} means {digest}, not {digests[name]}")
    return times

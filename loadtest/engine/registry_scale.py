"""Row 9: what ten thousand registered adapters cost a server in memory, and a look-up in time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from rootstock.adapters.client.client import Client
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.spec import Array
from rootstock.loadtest.fixtures.popularity import choose
from rootstock.loadtest.fixtures.registration import name_of, register
from rootstock.loadtest.fixtures.runner_bench import Bench, Say, open_bench
from rootstock.loadtest.fixtures.server import serving
from rootstock.loadtest.fixtures.workload import RANK
from rootstock.loadtest.measure.agreement import Disagreement, require_equal
from rootstock.loadtest.measure.processes import Memory, has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair

_TOKENS = 32
# Distinct sentences, and the most popular adapters whose scores are compared with the runner's own.
_TEXTS = 16
_CLIENTS = 8
_CACHE_MIB = 128
_SPARE_MB = 50.0
_LOOK_UPS = 2000
_LOOK_UP_MS = 1.0
# An adapter takes some 320 kB in the store; what is being imported is there twice.
_BYTES_EACH = 400_000


@dataclass(frozen=True)
class RegistryLoad:
    """How many adapters are registered, how many requests a server gets, and how often it is started."""

    registered: int
    requests: int
    repeats: int


def registry_rows(
    export: Path, traffic: RegistryLoad, windows: int, threads: int, say: Say
) -> list[BenchmarkRow | NotRun]:
    """Row 9: MB of a server under Zipf traffic − of one without adapters; p99 of look-ups, by windows."""
    count = traffic.registered
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        needed, free = count * _BYTES_EACH, shutil.disk_usage(home).free
        if free < needed:
            title = f"{count} registered adapters"
            return [
                NotRun("9", title, f"{home.parent} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} are needed")
            ]
        bench = open_bench(export, _TOKENS, threads, _TEXTS)
        say(f"row 9: registering {count} adapters")
        start = time.monotonic()
        names = register(home, bench.runner.spec, count, say)
        took = time.monotonic() - start
        digests = digests_of(home, names)
        looked_up = look_up_row(home, digests, windows, say)
        if not has_proc():
            reason = "this system has no /proc to read the memory of processes from"
            return [NotRun("9", f"memory with {count} registered adapters", reason), looked_up]
        held = _RegisteredHome(export, threads, home, digests, bench, bench.solo())
        return [_memory_row(held, traffic, took, say), looked_up]


def digests_of(home: Path, names: Sequence[str]) -> dict[str, str]:
    """What each name means; Disagreement where two mean the same."""
    with closing(SqlRegistry(f"sqlite:///{home / 'registry.db'}")) as registry:
        digests = {name: registry.resolve(name).digest for name in names}
    if len(set(digests.values())) < len(names):
        raise Disagreement(f"{len(names)} names have {len(set(digests.values()))} digests: adapters are the same")
    return digests


@dataclass(frozen=True)
class _RegisteredHome:
    """A home with adapters registered, and the logits that the first of them have to give for their sentences."""

    export: Path
    threads: int
    home: Path
    digests: Mapping[str, str]
    bench: Bench
    logits: list[Array]

    def empty(self, requests: int) -> Memory:
        """The memory of a server without adapters that has embedded as many texts."""

        def ask(client: Client, i: int) -> None:
            client.embeddings("foundation", self._text(i))

        return self._measured(None, requests, ask)

    def full(self, requests: int) -> tuple[Memory, int]:
        """The memory of a server after Zipf traffic over all adapters, and how many of them it answered under."""
        chosen = list(islice(choose(list(self.digests), "zipf"), requests))

        def ask(client: Client, i: int) -> None:
            answer = client.predict(chosen[i], self._text(i))
            if answer["digest"] != self.digests[chosen[i]]:
                raise Disagreement(
                    f"{chosen[i]} was answered by {answer['digest']}, not {self.digests[chosen[i]]}"
                )

        return self._measured(self.home, requests, ask), len(set(chosen))

    def _measured(self, home: Path | None, requests: int, ask: Callable[[Client, int], None]) -> Memory:
        settings = {"CACHE_MB": str(_CACHE_MIB)}
        with (
            serving("uvicorn", self.export, self.threads, home=home, settings=settings) as served,
            Client(served.url) as client,
            ThreadPoolExecutor(_CLIENTS) as pool,
        ):
            if home is not None:
                self._check(client)
            for _ in pool.map(lambda i: ask(client, i), range(requests)):
                pass
            return memory(served.pid)

    def _check(self, client: Client) -> None:
        """Disagreement unless the most popular adapters give the runner's logits."""
        parameters = {"top_k": None, "function_to_apply": "none"}
        for i, logits in enumerate(self.logits[: len(self.digests)]):
            answer = client.predict(name_of(i), self._text(i), parameters)["predictions"][0]
            scores = [one["score"] for one in sorted(answer, key=lambda one: one["label"])]
            require_equal([np.array(scores, np.float32)], [logits], f"{name_of(i)} over HTTP against the runner")

    def _text(self, i: int) -> str:
        return self.bench.workload.sentences[i % _TEXTS]


def _memory_row(held: _RegisteredHome, traffic: RegistryLoad, took: float, say: Say) -> BenchmarkRow:
    pairs: list[Pair] = []
    proportional: list[Pair] = []
    distinct = 0
    for i in range(traffic.repeats):
        say(f"row 9: traffic {i + 1} of {traffic.repeats}")
        if i % 2 == 0:
            full, distinct = held.full(traffic.requests)
            empty = held.empty(traffic.requests)
        else:
            empty = held.empty(traffic.requests)
            full, distinct = held.full(traffic.requests)
        pairs.append(Pair(full.resident, empty.resident))
        proportional.append(Pair(full.proportional, empty.proportional))
    cache = _CACHE_MIB * 2**20 / 1e6
    return BenchmarkRow(
        label="9",
        title=f"memory with {traffic.registered} adapters under Zipf traffic − an empty server",
        top=f"resident memory of rootstock serve --server uvicorn (one process) with {traffic.registered} "
        f"rank-{RANK} query/value adapters registered, after {traffic.requests} predictions by {_CLIENTS} "
        f"clients under {distinct} of them (Zipf)",
        bottom=f"the same of a server with an empty registry, after {traffic.requests} embeddings of the same "
        "texts",
        unit="MB",
        pairs=pairs,
        target=cache + _SPARE_MB,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"target: the budget of {cache:.0f} MB (ROOTSTOCK_CACHE_MB={_CACHE_MIB}) and {_SPARE_MB:.0f} MB",
            "every answer had the right digest; the most popular adapters' scores equal the runner's own",
            f"making and importing them took {took:.0f} s, {traffic.registered / took:.0f} a second",
        ],
        extra={"proportional": [pair._asdict() for pair in proportional]},
    )


def look_up_row(home: Path, digests: Mapping[str, str], windows: int, say: Say) -> BenchmarkRow:
    """Row 9: the 99th percentile of look-ups by Zipf in the registry of `home`, a figure a window."""
    say(f"row 9: {windows} windows of {_LOOK_UPS} look-ups")
    url = f"sqlite:///{home / 'registry.db'}"
    picked = choose(list(digests), "zipf", seed=1)
    found = [_look_ups(url, picked, digests) for _ in range(windows)]
    return BenchmarkRow(
        label="9",
        title=f"p99 of a registry look-up, {len(digests)} registered adapters",
        top=f"the 99th percentile of {_LOOK_UPS} calls of SqlRegistry.resolve (SQLite) of names by Zipf; the "
        "registry is opened anew for each window, so that a name's first look-up in it reads the database",
        bottom="",
        unit="ms",
        pairs=[Pair(float(np.percentile(one, 99))) for one in found],
        target=_LOOK_UP_MS,
        measure=Measure.TOP,
        at_most=True,
        notes=[f"the median is {float(np.median(np.concatenate(found))):.3f} ms; opening is not counted"],
    )


def _look_ups(url: str, names: Iterator[str], digests: Mapping[str, str]) -> list[float]:
    """Milliseconds of each look-up of a window; Disagreement where one is wrong."""
    took = []
    with closing(SqlRegistry(url)) as registry:
        for name in islice(names, _LOOK_UPS):
            start = time.perf_counter()
            found = registry.resolve(name).digest
            took.append((time.perf_counter() - start) * 1e3)
            if found != digests[name]:
                raise Disagreement(f"{name} means {found}, not {digests[name]}")
    return took

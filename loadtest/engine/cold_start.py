"""The cost of the first answer of an adapter that is not in a slot, and of a thousand loads."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.home.home import Home
from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.local_engine import SLOTS, LocalEngine, local_engine
from rootstock.loadtest.fixtures.registration import digests_of, register
from rootstock.loadtest.fixtures.runner_bench import open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import RANK
from rootstock.loadtest.measure.agreement import Disagreement, require_equal
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.processes import has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.registry_catalog import RegistryCatalog

_TOKENS = 16
_WARM_CALLS = 3
# The foundation's slot, one for adapters, and the one kept for verification.
_ONE_SLOT = 3
_ADAPTERS_IN_TURN = 20
_LOADS, _QUICK_LOADS = 1000, 40
# The early loads that are compared, counted from 1. As many of the last loads are compared with them.
_EARLY = (10, 20)

_KIND = f"rank-{RANK} query/value adapters with a head, one text of {_TOKENS} tokens"


def cold_start(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure an adapter's first answer − a warm one, from disk and from host memory."""
    return cold_rows(setup, setup.count(max(setup.pairs, 30), setup.pairs))


def repeated_loads(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure the last loads of a long run ÷ its first ones."""
    return [loads_row(setup, setup.count(_LOADS, _QUICK_LOADS))]


def cold_rows(setup: BenchmarkSetup, samples: int) -> list[BenchmarkRow]:
    """Measure the milliseconds of `samples` adapters' first answers − those of warm ones."""
    setup.say(f"cold-start: {samples} adapters that are not in a slot")
    with _cold_adapters(setup, samples + 1) as adapters:
        first, *names = adapters.names
        with adapters.engine(SLOTS) as engine:
            adapters.call(engine, first)
            from_disk = [adapters.cold_and_warm(engine, name, "store") for name in names]
        with adapters.engine(_ONE_SLOT) as engine:
            for name in adapters.names:
                adapters.call(engine, name)
            from_memory = [adapters.cold_and_warm(engine, name, "memory") for name in adapters.names[:-1]]
    notes = [
        "every timed answer equals the runner's own on the same adapter",
        "the graphs are open and warm; another adapter answered just before",
    ]
    file_cache = "the bundles were written just before: the system's file cache is warm"
    return [
        _cold_row(
            "cold adapter from disk: first answer − warm answer",
            f"Engine.predict of an adapter that is only in the registry and the store: {_KIND}",
            from_disk,
            targets.COLD_DISK_MS,
            [file_cache, *notes],
        ),
        _cold_row(
            "cold adapter from host memory: first answer − warm answer",
            f"Engine.predict of an adapter in memory whose slot another adapter has taken: {_KIND}",
            from_memory,
            targets.COLD_MEMORY_MS,
            notes,
        ),
    ]


def _cold_row(title: str, top: str, pairs: list[Pair], target: float, notes: list[str]) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark="cold-start",
        title=title,
        top=top,
        bottom=f"the median of {_WARM_CALLS} calls for the same adapter right after it",
        unit="ms",
        pairs=pairs,
        target=target,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=notes,
    )


def loads_row(setup: BenchmarkSetup, loads: int) -> BenchmarkRow:
    """Measure the seconds of late loads from disk ÷ those of early ones. Each load evicts the one before."""
    setup.say(f"repeated-loads: {loads} loads and evictions")
    early, late = slice(_EARLY[0] - 1, _EARLY[1]), slice(loads - (_EARLY[1] - _EARLY[0] + 1), loads)
    seconds = []
    resident = []
    # Memory and the runner have room for one adapter each, so every call loads.
    limits = EngineLimits(cache_bytes=1)
    with (
        _cold_adapters(setup, _ADAPTERS_IN_TURN) as adapters,
        adapters.engine(_ONE_SLOT, limits) as engine,
    ):
        for i, name in enumerate(islice(cycle(adapters.names), loads)):
            seconds.append(adapters.cold_call(engine, name, "store"))
            if has_proc() and i in (_EARLY[1] - 1, loads - 1):
                resident.append(memory(os.getpid()).resident)
    pairs = [Pair(last, first) for last, first in zip(seconds[late], seconds[early], strict=True)]
    notes = ["every timed answer equals the runner's own on the same adapter; not judged"]
    if resident:
        notes.append(
            f"this process held {resident[0]:.0f} MB after load {_EARLY[1]}, {resident[1]:.0f} at the end"
        )
    return BenchmarkRow(
        benchmark="repeated-loads",
        title=f"{loads} loads and evictions: late ÷ early (time)",
        top=f"loads {late.start + 1} to {late.stop}: Engine.predict of an adapter that is only in the store: "
        f"{_KIND}",
        bottom=f"loads {early.start + 1} to {early.stop}",
        unit="seconds a load",
        pairs=pairs,
        notes=notes,
        extra={"seconds": seconds},
    )


@dataclass(frozen=True)
class _ColdAdapters:
    """Adapters in a registry and a store, a text, and by name the digest and the logits that answer it."""

    export: Path
    home: Path
    threads: int
    spec: FoundationSpec
    text: str
    digests: Mapping[str, str]
    logits: Mapping[str, Array]

    @property
    def names(self) -> list[str]:
        return list(self.digests)

    @contextmanager
    def engine(self, slots: int, limits: EngineLimits | None = None) -> Iterator[LocalEngine]:
        """Start an engine that has loaded none of them."""
        tokenizer = Tokenizer(self.export / "tokenizer.json")
        runner = OnnxRunner(self.export, slots, self.threads)
        home = Home(self.home)
        with closing(home.open_registry()) as registry:
            catalog = RegistryCatalog(registry, home.open_store(), self.spec, Limits())
            with local_engine(runner, tokenizer, catalog, limits) as engine:
                yield engine

    def call(self, engine: LocalEngine, name: str) -> float:
        """Return the seconds of a call. Raise Disagreement unless the answer is that adapter's."""
        start = time.perf_counter()
        answer = engine.one(name, self.text, top_k=None, function_to_apply="none")
        seconds = time.perf_counter() - start
        by_label = sorted(answer.predictions[0], key=lambda one: one["label"])
        scores = np.array([one["score"] for one in by_label], np.float32)
        require_equal([scores], [self.logits[name]], f"{name} through the engine against the runner")
        return seconds

    def cold_call(self, engine: LocalEngine, name: str, residency: str) -> float:
        """Return the seconds of a call for an adapter at `residency`. Raise Disagreement if it is elsewhere."""
        if (place := engine.engine.residency(self.digests[name])) != residency:
            raise Disagreement(f"{name} is in the {place} before its first call, not in the {residency}")
        return self.call(engine, name)

    def cold_and_warm(self, engine: LocalEngine, name: str, residency: str) -> Pair:
        """Return the milliseconds of a call for an adapter at `residency`, and of the calls after it."""
        first = self.cold_call(engine, name, residency)
        warm = median_interval([self.call(engine, name) for _ in range(_WARM_CALLS)]).median
        return Pair(first * 1e3, warm * 1e3)


@contextmanager
def _cold_adapters(setup: BenchmarkSetup, count: int) -> Iterator[_ColdAdapters]:
    bench = open_bench(setup.export, _TOKENS, setup.threads, count)
    spec, text = bench.runner.spec, bench.workload.sentences[0]
    logits = bench.runner.run(bench.of_one_input())
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        names = register(home, spec, count, setup.say)
        digests = digests_of(home, names)
        by_name = dict(zip(names, logits, strict=True))
        yield _ColdAdapters(setup.export, home, setup.threads, spec, text, digests, by_name)

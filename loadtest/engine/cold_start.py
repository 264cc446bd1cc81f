"""Rows 8 and "loads": the cost of the first answer of an adapter that is not in a slot, and whether it stays."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np

from rootstock.adapters.bundle import Limits
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from rootstock.loadtest.fixtures.local_engine import SLOTS, LocalEngine, local_engine
from rootstock.loadtest.fixtures.registration import register
from rootstock.loadtest.fixtures.runner_bench import Say, open_bench
from rootstock.loadtest.fixtures.workload import RANK
from rootstock.loadtest.measure.agreement import Disagreement, require_equal
from rootstock.loadtest.measure.processes import has_proc, memory
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.registry_catalog import RegistryCatalog

_TOKENS = 16
_WARM_CALLS = 3
_DISK_MS = 25.0
_MEMORY_MS = 2.0
# The foundation's slot, one for adapters, and the one kept for verification.
_ONE_SLOT = 3
_ADAPTERS_IN_TURN = 20
# Counted from 1: the first loads that are compared, and as many up to the last.
_EARLY = (10, 20)

_KIND = f"rank-{RANK} query/value adapters with a head, one text of {_TOKENS} tokens"


def cold_rows(export: Path, samples: int, threads: int, say: Say) -> list[BenchmarkRow]:
    """Row 8: milliseconds of an adapter's first answer − of a warm one, from disk and from host memory."""
    say(f"row 8: {samples} adapters that are not in a slot")
    with _published(export, samples + 1, threads, say) as published:
        first, *names = published.names
        with published.engine(SLOTS) as engine:
            published.ask(engine, first)
            disk = [published.cold_and_warm(engine, name, "store") for name in names]
        with published.engine(_ONE_SLOT) as engine:
            for name in published.names:
                published.ask(engine, name)
            stored = [published.cold_and_warm(engine, name, "memory") for name in published.names[:-1]]
    common = f"{_WARM_CALLS} calls of the same right after it, the median"
    notes = [
        "every timed answer equals the runner's own on the same adapter",
        "the graphs are open and warm; another adapter was answered just before",
    ]
    return [
        BenchmarkRow(
            label="8",
            title="cold adapter from disk: first answer − warm answer",
            top=f"Engine.predict of an adapter that is only in the registry and the store: {_KIND}",
            bottom=common,
            unit="ms",
            pairs=disk,
            target=_DISK_MS,
            measure=Measure.DIFFERENCE,
            at_most=True,
            notes=["the bundles were written just before: the system's file cache is warm", *notes],
        ),
        BenchmarkRow(
            label="8",
            title="cold adapter from host memory: first answer − warm answer",
            top=f"Engine.predict of an adapter in memory whose slot another has taken: {_KIND}",
            bottom=common,
            unit="ms",
            pairs=stored,
            target=_MEMORY_MS,
            measure=Measure.DIFFERENCE,
            at_most=True,
            notes=notes,
        ),
    ]


def loads_row(export: Path, loads: int, threads: int, say: Say) -> BenchmarkRow:
    """Row "loads": seconds of a late load from disk ÷ seconds of an early one, each evicting the one before."""
    say(f"row loads: {loads} loads and evictions")
    early, late = slice(_EARLY[0] - 1, _EARLY[1]), slice(loads - (_EARLY[1] - _EARLY[0] + 1), loads)
    seconds = []
    resident = []
    # Room for one adapter in memory and in the runner: every call loads.
    limits = EngineLimits(cache_bytes=1)
    with (
        _published(export, _ADAPTERS_IN_TURN, threads, say) as published,
        published.engine(_ONE_SLOT, limits) as engine,
    ):
        for i, name in enumerate(islice(cycle(published.names), loads)):
            seconds.append(published.ask_cold(engine, name, "store"))
            if has_proc() and i in (_EARLY[1] - 1, loads - 1):
                resident.append(memory(os.getpid()).resident)
    pairs = [Pair(last, first) for last, first in zip(seconds[late], seconds[early], strict=True)]
    notes = ["every timed answer equals the runner's own on the same adapter; not judged"]
    if resident:
        notes.append(
            f"this process held {resident[0]:.0f} MB after load {_EARLY[1]}, {resident[1]:.0f} at the end"
        )
    return BenchmarkRow(
        label="loads",
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
    """Adapters in a registry and a store, and a text with the digest and the logits that answer it, by name."""

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
        """An engine that has loaded none of them."""
        tokenizer = Tokenizer(self.export / "tokenizer.json")
        runner = OnnxRunner(self.export, slots, self.threads)
        with closing(SqlRegistry(f"sqlite:///{self.home / 'registry.db'}")) as registry:
            catalog = RegistryCatalog(registry, FolderStore(self.home / "store"), self.spec, Limits())
            with local_engine(runner, tokenizer, catalog, limits) as engine:
                yield engine

    def ask(self, engine: LocalEngine, name: str) -> float:
        """Seconds of a call; Disagreement unless its answer is that adapter's."""
        start = time.perf_counter()
        answer = engine.one(name, self.text, top_k=None, function_to_apply="none")
        seconds = time.perf_counter() - start
        by_label = sorted(answer.predictions[0], key=lambda one: one["label"])
        scores = np.array([one["score"] for one in by_label], np.float32)
        require_equal([scores], [self.logits[name]], f"{name} through the engine against the runner")
        return seconds

    def ask_cold(self, engine: LocalEngine, name: str, residency: str) -> float:
        """Seconds of a call for an adapter that is at `residency`; Disagreement where it is elsewhere."""
        if (found := engine.engine.residency(self.digests[name])) != residency:
            raise Disagreement(f"{name} is in the {found} before its first call, not in the {residency}")
        return self.ask(engine, name)

    def cold_and_warm(self, engine: LocalEngine, name: str, residency: str) -> Pair:
        """Milliseconds of a call for an adapter that is at `residency`, and of calls after it."""
        first = self.ask_cold(engine, name, residency)
        return Pair(first * 1e3, median(self.ask(engine, name) for _ in range(_WARM_CALLS)) * 1e3)


@contextmanager
def _published(export: Path, count: int, threads: int, say: Say) -> Iterator[_ColdAdapters]:
    bench = open_bench(export, _TOKENS, threads, count)
    spec, text = bench.runner.spec, bench.workload.sentences[0]
    logits = bench.runner.run(bench.of_one_text())
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as folder:
        home = Path(folder)
        names = register(home, spec, count, say)
        with closing(SqlRegistry(f"sqlite:///{home / 'registry.db'}")) as registry:
            digests = {name: registry.resolve(name).digest for name in names}
        yield _ColdAdapters(export, home, threads, spec, text, digests, dict(zip(names, logits, strict=True)))

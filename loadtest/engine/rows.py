"""The rows of `rootstock bench engine`, by label, and how much each measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootstock.loadtest.engine.adapters_vs_bare import foundation_row, head_only_row, plain_rows
from rootstock.loadtest.engine.cold_start import cold_rows, loads_row
from rootstock.loadtest.engine.fan_out import heads_row, top_row, unshared_row
from rootstock.loadtest.engine.registry_scale import RegistryLoad, registry_rows
from rootstock.loadtest.engine.startup import start_rows
from rootstock.loadtest.engine.vs_peft import peft_rows, sentence_row
from rootstock.loadtest.fixtures.runner_bench import Say
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun


@dataclass(frozen=True)
class Scale:
    """How much is measured: interleaved pairs, cold adapters (row 8), loads, starts (row 10), traffic (row 9)."""

    pairs: int
    cold: int
    loads: int
    starts: int
    traffic: RegistryLoad


def full_scale(pairs: int) -> Scale:
    """What the targets ask for. Six repeats are the least that have a 95 % interval."""
    return Scale(pairs, max(pairs, 30), 1000, 6, RegistryLoad(registered=10_000, requests=3000, repeats=6))


def quick_scale(pairs: int) -> Scale:
    """Enough to see that everything runs."""
    return Scale(pairs, pairs, 40, pairs, RegistryLoad(registered=40, requests=60, repeats=1))


@dataclass(frozen=True)
class EngineSetup:
    """What every row is measured on and with."""

    foundation: Path
    export: Path
    threads: int
    scale: Scale
    say: Say


def _plain(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return plain_rows(s.foundation, s.export, s.scale.pairs, s.threads, s.say)


def _foundation(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return [foundation_row(s.export, tokens, s.scale.pairs, s.threads, s.say) for tokens in (32, 16)]


def _head_only(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return [head_only_row(s.export, tokens, s.scale.pairs, s.threads, s.say) for tokens in (32, 16)]


def _peers(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    peft = peft_rows(s.foundation, s.export, s.scale.pairs, s.threads, s.say)
    return [*peft, sentence_row(s.foundation, s.export, s.scale.pairs, s.threads, s.say)]


def _heads(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return [heads_row(s.export, tokens, s.scale.pairs, s.threads, s.say) for tokens in (16, 32)]


def _top(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return [
        row(s.export, tokens, s.scale.pairs, s.threads, s.say)
        for row in (top_row, unshared_row)
        for tokens in (16, 32)
    ]


def _cold(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return cold_rows(s.export, s.scale.cold, s.threads, s.say)


def _loads(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return [loads_row(s.export, s.scale.loads, s.threads, s.say)]


def _registry(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return registry_rows(s.export, s.scale.traffic, s.scale.pairs, s.threads, s.say)


def _start(s: EngineSetup) -> Sequence[BenchmarkRow | NotRun]:
    return start_rows(s.export, s.scale.starts, s.threads, s.say)


ROWS: dict[str, Callable[[EngineSetup], Sequence[BenchmarkRow | NotRun]]] = {
    "plain": _plain,
    "1": _foundation,
    "1b": _head_only,
    "2": _peers,
    "6": _heads,
    "7": _top,
    "8": _cold,
    "loads": _loads,
    "9": _registry,
    "10": _start,
}


def engine_rows(labels: Sequence[str], setup: EngineSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the rows of these labels, in the table's order."""
    return [row for label in ROWS if label in labels for row in ROWS[label](setup)]

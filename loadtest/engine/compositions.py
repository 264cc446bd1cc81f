"""The cost of compositions against adapters of as many ranks."""

from __future__ import annotations

from rootstock.adapters.spec import Adapter
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import ROWS, Bench, open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import RANK, Kind
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.service.engine.core.composition import Composition, CompositionPart, compose

_TOKENS = 32
_WEIGHTS = (0.7, 0.3)


def compositions(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure 32 compositions of two adapters in a batch against 32 adapters of the sum of their ranks."""
    whole = 2 * RANK
    setup.say(f"compositions: {ROWS} compositions of rank {RANK} + {RANK} and {ROWS} adapters of rank {whole}")
    single = open_bench(setup.export, _TOKENS, setup.threads, kind=Kind(rank=whole))
    composed = open_bench(setup.export, _TOKENS, setup.threads)
    _compose(composed, whole)
    mixed, plain = composed.mixed(), single.mixed()
    answers = composed.runner.run(mixed)
    worst = require_equal(answers, composed.solo(), "mixed against alone")
    neighbours = composed.runner.run(composed.mixed(shift=1))
    require_distinct(answers, neighbours, "mixed against the neighbour's composition")
    return [
        BenchmarkRow(
            benchmark="compositions",
            title=f"{ROWS} compositions of two rank-{RANK} adapters in {ROWS}×{_TOKENS} tokens ÷ {ROWS} adapters "
            f"of rank {whole} (throughput)",
            top=f"OnnxRunner.run, {ROWS} rows of {_TOKENS} tokens under {ROWS} rank-{whole} query/value "
            "adapters, each with its own head",
            bottom=f"OnnxRunner.run, the same rows under {ROWS} compositions of two rank-{RANK} query/value "
            f"adapters with the weights {_WEIGHTS[0]} and {_WEIGHTS[1]}, each with the head of its first",
            unit="seconds a batch",
            pairs=interleave(lambda: single.runner.run(plain), lambda: composed.runner.run(mixed), setup.pairs),
            target=targets.COMPOSITIONS,
            notes=[f"each row's answer equals its answer alone (largest difference {worst:.1e})"],
        )
    ]


def _compose(bench: Bench, max_rank: int) -> None:
    """Put the composition of each adapter and the next one into the slot of the first."""
    adapters = bench.workload.adapters(bench.runner.spec)
    for i, first in enumerate(adapters):
        parts: list[Adapter] = [first, adapters[(i + 1) % len(adapters)]]
        weighted = tuple(CompositionPart(one.digest, w) for one, w in zip(parts, _WEIGHTS, strict=True))
        composed = compose(Composition(weighted, 0), parts, max_rank)
        bench.runner.place(1 + i, bench.runner.stage(composed))

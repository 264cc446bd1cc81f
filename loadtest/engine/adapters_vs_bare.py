"""The cost of adapters, in use and not, against the foundation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import ROWS, Bench, open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import RANK, Kind, make_adapters
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow

if TYPE_CHECKING:
    from rootstock.loadtest.peers.plain import PlainPeer

# (rows, tokens)
_PLAIN_SHAPES = ((32, 16), (32, 32), (1, 16))
_TOKENS = (32, 16)


def plain_export(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure a plain ONNX export's seconds ÷ those of the runner's bare rows, by shape of batch."""
    from rootstock.loadtest.peers.plain import PlainPeer

    setup.say("plain-export: exporting the foundation as it is")
    spec = open_bench(setup.export, 16, setup.threads, adapters=1).runner.spec
    peer = PlainPeer(setup.foundation, spec, setup.threads)
    return [_plain_row(peer, setup, shape) for shape in _PLAIN_SHAPES]


def adapters_vs_bare(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure 32 adapters in a batch against the foundation alone, at 32 and at 16 tokens a row."""
    return [foundation_row(setup, tokens) for tokens in _TOKENS]


def adapters_vs_head(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure 32 adapters in a batch against one head, at 32 and at 16 tokens a row."""
    return [head_row(setup, tokens) for tokens in _TOKENS]


def _plain_row(peer: PlainPeer, setup: BenchmarkSetup, shape: tuple[int, int]) -> BenchmarkRow:
    rows, tokens = shape
    setup.say(f"plain-export: {rows}×{tokens} tokens")
    bench = open_bench(setup.export, tokens, setup.threads)
    batch, run = bench.under(0, rows), bench.runner.run
    worst = require_equal(run(batch), peer.run(batch), "the foundation alone against a plain export")
    trials = peer.choose(batch)
    return BenchmarkRow(
        benchmark="plain-export",
        title=f"no adapter in use, {rows}×{tokens} tokens ÷ a plain ONNX export (throughput)",
        top="torch.onnx.export of transformers' AutoModel as it is (opset 17, TorchScript exporter, "
        f"{peer.attention} attention) in ONNX Runtime, {setup.threads} threads, pooled and normalised in numpy",
        bottom=f"OnnxRunner.run, the same rows in slot 0 with {ROWS} adapters resident, {setup.threads} threads: "
        "the bare trunk, pooled and normalised",
        unit="seconds a batch",
        pairs=interleave(lambda: peer.run(batch), lambda: run(batch), setup.pairs),
        target=targets.PLAIN_EXPORT,
        notes=[
            f"both give the same embeddings (largest difference {worst:.1e})",
            "the faster attention in a trial is compared: "
            + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in trials.items()),
        ],
    )


def foundation_row(setup: BenchmarkSetup, tokens: int) -> BenchmarkRow:
    """Measure the foundation's seconds ÷ those of 32 distinct adapters, on one runner and the same tokens."""
    setup.say(f"adapters-vs-bare: {ROWS} adapters on {ROWS}×{tokens} tokens")
    bench = open_bench(setup.export, tokens, setup.threads)
    inputs, target = f"{ROWS}×{tokens} tokens", targets.ADAPTERS_VS_BARE.get(tokens)
    return bare_row("adapters-vs-bare", inputs, bench, setup.pairs, target)


def bare_row(benchmark: str, inputs: str, bench: Bench, pairs: int, target: float | None) -> BenchmarkRow:
    """Measure the foundation's seconds ÷ those of a bench's distinct adapters on the same inputs."""
    mixed, bare, run = bench.mixed(), bench.under(0), bench.runner.run
    answers = run(mixed)
    worst = require_equal(answers, bench.solo(), "mixed against alone")
    require_distinct(answers, run(bench.mixed(shift=1)), "mixed against the neighbour's adapter")
    return BenchmarkRow(
        benchmark=benchmark,
        title=f"{ROWS} adapters in {inputs} ÷ the foundation alone (throughput)",
        top=f"OnnxRunner.run, {inputs} in slot 0: the bare trunk, pooled",
        bottom=f"OnnxRunner.run, the same rows under {ROWS} rank-{RANK} query/value adapters, each with its own "
        "head",
        unit="seconds a batch",
        pairs=interleave(lambda: run(bare), lambda: run(mixed), pairs),
        target=target,
        notes=[f"each row's answer equals its answer alone (largest difference {worst:.1e})"],
    )


def head_row(setup: BenchmarkSetup, tokens: int) -> BenchmarkRow:
    """Measure one head's seconds ÷ those of 32 distinct adapters. Both read the same states of the trunk."""
    setup.say(f"adapters-vs-head: {ROWS} adapters on {ROWS}×{tokens} tokens")
    bench = open_bench(setup.export, tokens, setup.threads)
    spec, run = bench.runner.spec, bench.runner.run
    classifier = make_adapters(spec, 1, Kind(rank=0)).adapters(spec)[0]
    mixed, one = bench.mixed(), bench.under(bench.place_last(classifier))
    worst = require_equal(run(mixed), bench.solo(), "mixed against alone")
    require_distinct(run(mixed), run(one), "mixed against the one head")
    return BenchmarkRow(
        benchmark="adapters-vs-head",
        title=f"{ROWS} adapters in {ROWS}×{tokens} tokens ÷ one head on the foundation (throughput)",
        top=f"OnnxRunner.run, {ROWS} rows of {tokens} tokens under one adapter that is a head alone "
        f"({classifier.head.class_name}): the bare trunk and the head",
        bottom=f"OnnxRunner.run, the same rows under {ROWS} rank-{RANK} query/value adapters, each with its own "
        "head of the same class",
        unit="seconds a batch",
        pairs=interleave(lambda: run(one), lambda: run(mixed), setup.pairs),
        notes=[
            "both sides read the same states of the trunk and skip the same work; not judged",
            f"each row's answer equals its answer alone (largest difference {worst:.1e})",
        ],
    )

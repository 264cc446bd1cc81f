"""Rows "plain", 1 and 1b: what adapters cost, in use and not, against the foundation alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.loadtest.fixtures.runner_bench import ROWS, Say, open_bench
from rootstock.loadtest.fixtures.workload import RANK, Kind, make_workload
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleaved
from rootstock.loadtest.measure.row import BenchmarkRow

if TYPE_CHECKING:
    from rootstock.loadtest.peers.plain import PlainPeer

# (rows, tokens)
_PLAIN_SHAPES = ((32, 16), (32, 32), (1, 16))
_PLAIN_TARGET = 1.0
_TARGETS = {32: 0.95, 16: 0.90}


def plain_rows(foundation: Path, export: Path, pairs: int, threads: int, say: Say) -> list[BenchmarkRow]:
    """Row "plain": seconds of a plain ONNX export ÷ seconds of the runner's bare rows, by shape of batch."""
    from rootstock.loadtest.peers.plain import PlainPeer

    say("row plain: exporting the foundation as it is")
    peer = PlainPeer(foundation, open_bench(export, 16, threads, adapters=1).runner.spec, threads)
    return [_plain_row(peer, export, shape, pairs, threads, say) for shape in _PLAIN_SHAPES]


def _plain_row(
    peer: PlainPeer, export: Path, shape: tuple[int, int], pairs: int, threads: int, say: Say
) -> BenchmarkRow:
    rows, tokens = shape
    say(f"row plain: {rows}×{tokens} tokens against a plain ONNX export")
    bench = open_bench(export, tokens, threads)
    batch, run = bench.under(0, rows), bench.runner.run
    worst = require_equal(run(batch), peer.run(batch), "the foundation alone against a plain export")
    trials = peer.choose(batch)
    return BenchmarkRow(
        label="plain",
        title=f"no adapter in use, {rows}×{tokens} tokens ÷ a plain ONNX export (throughput)",
        top="torch.onnx.export of transformers' AutoModel as it is (opset 17, TorchScript exporter, "
        f"{peer.attention} attention) in ONNX Runtime, {threads} threads, pooled and normalised in numpy",
        bottom=f"OnnxRunner.run, the same rows in slot 0 with {ROWS} adapters resident, {threads} threads: the "
        "bare trunk, pooled and normalised",
        unit="seconds a batch",
        pairs=interleaved(lambda: peer.run(batch), lambda: run(batch), pairs),
        target=_PLAIN_TARGET,
        notes=[
            f"both give the same embeddings (largest difference {worst:.1e})",
            "of the plain exports the faster in a trial is compared: "
            + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in trials.items()),
        ],
    )


def foundation_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> BenchmarkRow:
    """Row 1: seconds of the foundation alone ÷ seconds of 32 distinct adapters, same runner, same tokens."""
    say(f"row 1: {ROWS} adapters on {ROWS}×{tokens} tokens against the foundation alone")
    bench = open_bench(export, tokens, threads)
    mixed, bare, run = bench.mixed(), bench.under(0), bench.runner.run
    answers = run(mixed)
    worst = require_equal(answers, bench.solo(), "mixed against alone")
    require_distinct(answers, run(bench.mixed(shift=1)), "mixed against the neighbour's adapter")
    return BenchmarkRow(
        label="1",
        title=f"{ROWS} adapters in {ROWS}×{tokens} tokens ÷ the foundation alone (throughput)",
        top=f"OnnxRunner.run, {ROWS} rows of {tokens} tokens in slot 0: the bare trunk, pooled and normalised",
        bottom=f"OnnxRunner.run, the same rows under {ROWS} rank-{RANK} query/value adapters, each with its own "
        "head",
        unit="seconds a batch",
        pairs=interleaved(lambda: run(bare), lambda: run(mixed), pairs),
        target=_TARGETS.get(tokens),
        notes=[f"each row's answer equals its answer alone (largest difference {worst:.1e})"],
    )


def head_only_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> BenchmarkRow:
    """Row 1b: as row 1, but against one classifier that changes nothing of the trunk and reads the same of it."""
    say(f"row 1b: {ROWS} adapters on {ROWS}×{tokens} tokens against one head")
    bench = open_bench(export, tokens, threads)
    spec, run = bench.runner.spec, bench.runner.run
    classifier = make_workload(spec, bench.tokenizer, 1, tokens, Kind(rank=0)).adapters(spec)[0]
    mixed, one = bench.mixed(), bench.under(bench.place_last(classifier))
    worst = require_equal(run(mixed), bench.solo(), "mixed against alone")
    require_distinct(run(mixed), run(one), "mixed against the one head")
    return BenchmarkRow(
        label="1b",
        title=f"{ROWS} adapters in {ROWS}×{tokens} tokens ÷ one head on the foundation (throughput)",
        top=f"OnnxRunner.run, {ROWS} rows of {tokens} tokens under one adapter that is a head alone "
        f"({classifier.head.class_name}): the bare trunk and the head",
        bottom=f"OnnxRunner.run, the same rows under {ROWS} rank-{RANK} query/value adapters, each with its own "
        "head of the same class",
        unit="seconds a batch",
        pairs=interleaved(lambda: run(one), lambda: run(mixed), pairs),
        notes=[
            "both sides read what such a head reads of the trunk, and skip the same work; not judged",
            f"each row's answer equals its answer alone (largest difference {worst:.1e})",
        ],
    )

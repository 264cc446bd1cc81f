"""The engine's ONNX runner against PEFT's mixed batch, one `set_adapter` a request, and sentence-transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from rootstock.adapters.spec import Array
from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.runner_bench import ROWS, Bench, open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.pairs import interleave, mean_seconds
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun, Pair
from rootstock.service.engine.encode.modalities.text import Tokenizer

_NAME = "vs-peft"
_TOKENS = 32


def vs_peft(setup: BenchmarkSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the runner against PEFT in two ways and, where it is installed, sentence-transformers."""
    return [*peft_rows(setup), sentence_row(setup)]


class PeftComparison(NamedTuple):
    """A benchmark against PEFT: its name, what a batch and one request hold, and the target."""

    name: str
    batch: str
    request: str
    target: float


def peft_rows(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure PEFT's seconds ÷ the runner's on texts."""
    compared = PeftComparison(_NAME, f"{ROWS}×{_TOKENS} tokens", f"of {_TOKENS} tokens", targets.VS_PEFT)
    return against_peft(setup, lambda: open_bench(setup.export, _TOKENS, setup.threads), compared)


def against_peft(
    setup: BenchmarkSetup, open_rows: Callable[[], Bench], compared: PeftComparison
) -> list[BenchmarkRow]:
    """Measure PEFT's seconds ÷ the runner's, on the same adapters, inputs and threads.

    PEFT runs its mixed batch, which is judged, and one `set_adapter` a request, which is not.
    """
    from rootstock.loadtest.peers.peft import PeftPeer

    setup.say(f"{compared.name}: loading {ROWS} adapters into PEFT")
    bench = open_rows()
    mixed, spec, workload = bench.mixed(), bench.runner.spec, bench.workload
    # Close our sessions, to time PEFT once while none of our threads is alive.
    del bench
    peer = PeftPeer(setup.foundation, workload, setup.threads, modality=spec.modality)
    peer.prepare(mixed, spec.inputs, workload.names)
    alone = mean_seconds(peer.run, 5)
    bench = open_rows()
    run = bench.runner.run
    answers = run(mixed)
    worst = require_equal(answers, list(peer.run()), "the runner against PEFT")
    require_equal(answers, list(peer.one_by_one()), "the runner against PEFT, one adapter at a time")
    require_distinct(answers, run(bench.mixed(shift=1)), "the runner against the neighbour's adapter")
    setup.say(f"{compared.name}: {ROWS} adapters on {compared.batch}")
    same = f"both give the same logits (largest difference {worst:.1e})"
    batches = interleave(peer.run, lambda: run(mixed), setup.pairs)
    one_by_one = interleave(peer.one_by_one, lambda: run(mixed), setup.pairs)
    return [
        _mixed_batch_row(compared, setup.threads, batches, alone, same),
        _set_adapter_row(compared, setup.threads, one_by_one, same),
    ]


def _mixed_batch_row(
    compared: PeftComparison, threads: int, pairs: list[Pair], alone: float, same: str
) -> BenchmarkRow:
    median = median_interval([pair.top for pair in pairs]).median
    return BenchmarkRow(
        benchmark=compared.name,
        title=f"against PEFT's mixed batch, {ROWS} adapters in {compared.batch} (speed)",
        top="PeftModel(…, adapter_names=…) in one forward, eval, inference_mode, sdpa, "
        f"{threads} torch threads: trunk, LoRA and every adapter's own classifier, logits out; tensors made "
        "beforehand",
        bottom=_runner(threads),
        unit="seconds a batch",
        pairs=pairs,
        target=compared.target,
        notes=[
            same,
            f"PEFT took {alone * 1e3:.0f} ms with no session of ours alive, {median * 1e3:.0f} ms in turns"
            " with ours",
        ],
        extra=_versions(),
    )


def _set_adapter_row(compared: PeftComparison, threads: int, pairs: list[Pair], same: str) -> BenchmarkRow:
    return BenchmarkRow(
        benchmark=compared.name,
        title=f"against one set_adapter a request, {ROWS} requests {compared.request} (speed)",
        top=f"PeftModel.set_adapter and a forward of one row, {ROWS} times, eval, inference_mode, sdpa, "
        f"{threads} torch threads; tensors made beforehand",
        bottom=_runner(threads),
        unit=f"seconds for {ROWS}",
        pairs=pairs,
        notes=[same, "not judged"],
    )


def sentence_row(setup: BenchmarkSetup) -> BenchmarkRow | NotRun:
    """Measure sentence-transformers on the bare foundation against the runner on 32 adapters, both from texts."""
    title = f"{ROWS} adapters, {ROWS} texts of {_TOKENS} tokens ÷ sentence-transformers without any (speed)"
    if importlib.util.find_spec("sentence_transformers") is None:
        return NotRun(_NAME, title, "sentence-transformers is not installed (pip install sentence-transformers)")
    from rootstock.loadtest.peers.sentence_transformers import SentencePeer

    setup.say("vs-peft: against sentence-transformers")
    bench = open_bench(setup.export, _TOKENS, setup.threads)
    peer = SentencePeer(setup.foundation, setup.threads)
    texts, spec, tokenizer = (
        bench.workload.sentences,
        bench.runner.spec,
        Tokenizer(setup.export / "tokenizer.json"),
    )
    slots = range(1, ROWS + 1)

    def run_texts() -> list[Array]:
        encoded = bench.workload.encoded(tokenizer, spec)
        return bench.runner.run(bench.batch(encoded, slots))

    worst = require_equal(bench.runner.run(bench.under(0)), peer.run(texts), "the foundation's embeddings")
    require_equal(run_texts(), bench.solo(), "mixed against alone")
    return BenchmarkRow(
        benchmark=_NAME,
        title=title,
        top=f"SentenceTransformer.encode(texts, batch_size={ROWS}) of the foundation alone, {setup.threads} "
        "torch threads: tokenise, trunk, pool, normalise",
        bottom=f"Tokenizer.encode, pad and OnnxRunner.run under {ROWS} adapters, {setup.threads} threads: "
        "tokenise, trunk, LoRA, every adapter's own head",
        unit="seconds a batch",
        pairs=interleave(lambda: peer.run(texts), run_texts, setup.pairs),
        notes=[
            f"both give the same embeddings of the foundation alone (largest difference {worst:.1e}); not judged"
        ],
        extra=_versions(),
    )


def _runner(threads: int) -> str:
    return (
        f"OnnxRunner.run on the same arrays, {threads} threads: stacking the adapters, trunk, LoRA and every "
        "adapter's own head, logits out"
    )


def _versions() -> dict[str, Any]:
    import torch

    return {"torch_threads": torch.get_num_threads(), "torch_interop_threads": torch.get_num_interop_threads()}

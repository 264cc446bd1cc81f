"""Row 2: the engine's ONNX runner against PEFT's mixed batch; printed with it, two other ways to serve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from rootstock.adapters.spec import Array
from rootstock.loadtest.fixtures.runner_bench import ROWS, Say, open_bench
from rootstock.loadtest.measure.agreement import require_distinct, require_equal
from rootstock.loadtest.measure.pairs import interleaved, mean_seconds
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.service.engine.encode.modalities.text import pad

_TOKENS = 32
_PEFT_TARGET = 2.0


def peft_rows(foundation: Path, export: Path, pairs: int, threads: int, say: Say) -> list[BenchmarkRow]:
    """Row 2: seconds of PEFT's mixed batch ÷ seconds of ours, same adapters, tokens and threads.

    And the same with one `set_adapter` a request, which is not judged here.
    """
    from rootstock.loadtest.peers.peft import PeftPeer

    say("row 2: loading 32 adapters into PEFT")
    bench = open_bench(export, _TOKENS, threads)
    mixed, spec, workload = bench.mixed(), bench.runner.spec, bench.workload
    # Our sessions close: PEFT is timed once with none of our threads alive.
    del bench
    peer = PeftPeer(foundation, workload, threads)
    peer.prepare(mixed, spec.inputs, workload.names)
    alone = mean_seconds(peer.run, 5)
    bench = open_bench(export, _TOKENS, threads)
    run = bench.runner.run
    answers = run(mixed)
    worst = require_equal(answers, list(peer.run()), "ours against PEFT")
    require_equal(answers, list(peer.one_by_one()), "ours against PEFT, one adapter at a time")
    require_distinct(answers, run(bench.mixed(shift=1)), "ours against the neighbour's adapter")
    say(f"row 2: {ROWS} adapters on {ROWS}×{_TOKENS} tokens against PEFT")
    measured = interleaved(peer.run, lambda: run(mixed), pairs)
    one_by_one = interleaved(peer.one_by_one, lambda: run(mixed), pairs)
    between = sorted(pair.top for pair in measured)[len(measured) // 2]
    ours = (
        f"OnnxRunner.run on the same arrays, {threads} threads: stacking the adapters, trunk, LoRA and every "
        "adapter's own head, logits out"
    )
    same = f"both give the same logits (largest difference {worst:.1e})"
    return [
        BenchmarkRow(
            label="2",
            title=f"against PEFT's mixed batch, {ROWS} adapters in {ROWS}×{_TOKENS} tokens (speed)",
            top="PeftModel(…, adapter_names=…) in one forward, eval, inference_mode, sdpa, "
            f"{threads} torch threads: trunk, LoRA and every adapter's own classifier, logits out; tensors made "
            "beforehand",
            bottom=ours,
            unit="seconds a batch",
            pairs=measured,
            target=_PEFT_TARGET,
            notes=[
                same,
                f"PEFT took {alone * 1e3:.0f} ms with no session of ours alive, {between * 1e3:.0f} ms in turns"
                " with ours",
            ],
            extra=_versions(),
        ),
        BenchmarkRow(
            label="2",
            title=f"against one set_adapter a request, {ROWS} requests of {_TOKENS} tokens (speed)",
            top=f"PeftModel.set_adapter and a forward of one row, {ROWS} times, eval, inference_mode, sdpa, "
            f"{threads} torch threads; tensors made beforehand",
            bottom=ours,
            unit=f"seconds for {ROWS}",
            pairs=one_by_one,
            notes=[same, "not judged: row 3 compares the two behind the same HTTP stack"],
        ),
    ]


def sentence_row(foundation: Path, export: Path, pairs: int, threads: int, say: Say) -> BenchmarkRow | NotRun:
    """Seconds of sentence-transformers on the bare foundation ÷ seconds of ours under 32 adapters, from texts."""
    title = f"{ROWS} adapters, {ROWS} texts of {_TOKENS} tokens ÷ sentence-transformers without any (speed)"
    if importlib.util.find_spec("sentence_transformers") is None:
        return NotRun("2", title, "sentence-transformers is not installed (pip install sentence-transformers)")
    from rootstock.loadtest.peers.sentence_transformers import SentencePeer

    say("row 2: against sentence-transformers")
    bench = open_bench(export, _TOKENS, threads)
    peer = SentencePeer(foundation, threads)
    texts, spec, tokenizer = bench.workload.sentences, bench.runner.spec, bench.tokenizer
    slots = range(1, ROWS + 1)

    def ours() -> list[Array]:
        encoded = bench.workload.encoded(tokenizer, spec)
        return bench.runner.run(pad(encoded, slots, tokenizer.pad_id))

    worst = require_equal(bench.runner.run(bench.under(0)), peer.run(texts), "the foundation's embeddings")
    require_equal(ours(), bench.solo(), "mixed against alone")
    return BenchmarkRow(
        label="2",
        title=title,
        top=f"SentenceTransformer.encode(texts, batch_size={ROWS}) of the foundation alone, {threads} torch "
        "threads: tokenise, trunk, pool, normalise",
        bottom=f"Tokenizer.encode, pad and OnnxRunner.run under {ROWS} adapters, {threads} threads: tokenise, "
        "trunk, LoRA, every adapter's own head",
        unit="seconds a batch",
        pairs=interleaved(lambda: peer.run(texts), ours, pairs),
        notes=[
            f"both give the same embeddings of the foundation alone (largest difference {worst:.1e}); not judged"
        ],
        extra=_versions(),
    )


def _versions() -> dict[str, Any]:
    import torch

    return {"torch_threads": torch.get_num_threads(), "torch_interop_threads": torch.get_num_interop_threads()}

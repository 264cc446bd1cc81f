"""Rows 1 and 2: the engine's ONNX runner against its own bare foundation, and against PEFT's mixed batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.spec import Array
from loadtest.agreement import require_distinct, require_equal
from loadtest.pairs import interleaved, mean_seconds
from loadtest.row import Row
from loadtest.workload import RANK, Workload, make_workload
from service.engine.batch import Batch, pad
from service.engine.catalog import foundation_adapter
from service.engine.runners.onnx_runner import OnnxRunner
from service.engine.tokenizer import Tokenizer

ROWS = 32
_TARGETS = {32: 0.95, 16: 0.90}
_PEFT_TARGET = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """A runner with the foundation in slot 0 and a workload's adapters in the slots from 1."""

    runner: OnnxRunner
    tokenizer: Tokenizer
    workload: Workload

    def batch(self, shift: int = 0) -> Batch:
        """One row an adapter; `shift` gives each row the adapter that many places on."""
        slots = [1 + (i + shift) % ROWS for i in range(ROWS)]
        return pad(self.workload.encoded(self.tokenizer, self.runner.spec), slots, self.tokenizer.pad_id)

    def bare(self) -> Batch:
        """The same rows under the foundation alone."""
        encoded = self.workload.encoded(self.tokenizer, self.runner.spec)
        return pad(encoded, [0] * ROWS, self.tokenizer.pad_id)

    def solo(self) -> list[Array]:
        """Each row's answer in a batch of its own."""
        encoded = self.workload.encoded(self.tokenizer, self.runner.spec)
        pad_id = self.tokenizer.pad_id
        return [self.runner.run(pad([row], [1 + i], pad_id))[0] for i, row in enumerate(encoded)]


def open_bench(export: Path, tokens: int, threads: int) -> Bench:
    """A bench of 32 adapters on the exported foundation in `export`, with sentences of `tokens` tokens."""
    tokenizer = Tokenizer(export / "tokenizer.json")
    runner = OnnxRunner(export, ROWS + 1, threads)
    workload = make_workload(runner.spec, tokenizer, ROWS, tokens)
    runner.place(0, runner.stage(foundation_adapter(runner.spec)))
    for slot, adapter in enumerate(workload.adapters(runner.spec), start=1):
        runner.place(slot, runner.stage(adapter))
    return Bench(runner, tokenizer, workload)


def foundation_row(export: Path, tokens: int, pairs: int, threads: int, say: Say) -> Row:
    """Row 1: seconds of the foundation alone ÷ seconds of 32 distinct adapters, same runner, same tokens."""
    say(f"row 1: 32 adapters on {ROWS}×{tokens} tokens against the foundation alone")
    bench = open_bench(export, tokens, threads)
    mixed, bare, run = bench.batch(), bench.bare(), bench.runner.run
    answers = run(mixed)
    worst = require_equal(answers, bench.solo(), "mixed against alone")
    require_distinct(answers, run(bench.batch(shift=1)), "mixed against the neighbour's adapter")
    measured = interleaved(lambda: run(bare), lambda: run(mixed), pairs)
    return Row(
        number=1,
        title=f"32 adapters in {ROWS}×{tokens} tokens ÷ the foundation alone (throughput)",
        top=f"OnnxRunner.run, {ROWS} rows of {tokens} tokens in slot 0: the bare trunk, pooled and normalised",
        bottom=f"OnnxRunner.run, the same rows under 32 rank-{RANK} query/value adapters, each with its own head",
        unit="seconds a batch",
        pairs=measured,
        target=_TARGETS.get(tokens),
        notes=[f"each row's answer equals its answer alone (largest difference {worst:.1e})"],
    )


def peft_row(foundation: Path, export: Path, pairs: int, threads: int, say: Say) -> Row:
    """Row 2: seconds of PEFT's mixed batch ÷ seconds of ours, same adapters, tokens and threads."""
    from loadtest.peft_peer import PeftPeer

    tokens = 32
    say("row 2: loading 32 adapters into PEFT")
    bench = open_bench(export, tokens, threads)
    mixed, spec = bench.batch(), bench.runner.spec
    workload = bench.workload
    # Our sessions close: PEFT is timed once with none of our threads alive.
    del bench
    peer = PeftPeer(foundation, workload, threads)
    peer.prepare(mixed, spec.inputs, workload.names)
    alone = mean_seconds(peer.run, 5)
    bench = open_bench(export, tokens, threads)
    answers = bench.runner.run(mixed)
    worst = require_equal(answers, list(peer.run()), "ours against PEFT")
    require_distinct(answers, bench.runner.run(bench.batch(shift=1)), "ours against the neighbour's adapter")
    say(f"row 2: 32 adapters on {ROWS}×{tokens} tokens against PEFT's mixed batch")
    measured = interleaved(peer.run, lambda: bench.runner.run(mixed), pairs)
    between = sorted(pair.top for pair in measured)[len(measured) // 2]
    return Row(
        number=2,
        title=f"against PEFT's mixed batch, 32 adapters in {ROWS}×{tokens} tokens (speed)",
        top=f"PeftModel(…, adapter_names=…) in one forward, eval, inference_mode, sdpa, {threads} torch threads: "
        "trunk, LoRA and every adapter's own classifier, logits out; tensors made beforehand",
        bottom=f"OnnxRunner.run on the same arrays, {threads} threads: stacking the adapters, trunk, LoRA and "
        "every adapter's own head, logits out",
        unit="seconds a batch",
        pairs=measured,
        target=_PEFT_TARGET,
        notes=[
            f"both give the same logits (largest difference {worst:.1e})",
            f"PEFT took {alone * 1e3:.0f} ms with no session of ours alive, {between * 1e3:.0f} ms in turns"
            " with ours",
        ],
        extra=_versions(),
    )


def _versions() -> dict[str, Any]:
    import torch

    return {"torch_threads": torch.get_num_threads(), "torch_interop_threads": torch.get_num_interop_threads()}

"""A runner with adapters in its slots and batches to run on it: what the rows about the runner share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.spec import Adapter, Array
from loadtest.workload import WHOLE, Kind, Workload, make_workload
from service.engine.batch import Batch, pad
from service.engine.catalog import foundation_adapter
from service.engine.runners.onnx_runner import OnnxRunner
from service.engine.tokenizer import Encoded, Tokenizer

ROWS = 32

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """A runner with the foundation in slot 0 and a workload's adapters in the slots from 1; one slot is free."""

    runner: OnnxRunner
    tokenizer: Tokenizer
    workload: Workload
    encoded: Sequence[Encoded]

    @property
    def adapters(self) -> int:
        return len(self.workload.names)

    def mixed(self, shift: int = 0) -> Batch:
        """One row an adapter; `shift` gives each row the adapter that many places on."""
        return self._batch(self.encoded, [1 + (i + shift) % self.adapters for i in range(self.adapters)])

    def under(self, slot: int, rows: int | None = None) -> Batch:
        """The first `rows` of the same rows, all of them by default, under one slot; 0: the foundation alone."""
        encoded = self.encoded[:rows]
        return self._batch(encoded, [slot] * len(encoded))

    def of_one_text(self) -> Batch:
        """The first row's text under every adapter."""
        return self._batch([self.encoded[0]] * self.adapters, range(1, self.adapters + 1))

    def solo(self) -> list[Array]:
        """Each row's answer under its adapter in a batch of its own."""
        return [self.runner.run(self._batch([row], [1 + i]))[0] for i, row in enumerate(self.encoded)]

    def place_last(self, adapter: Adapter) -> int:
        """Put one more adapter into the free slot and give its number."""
        slot = self.adapters + 1
        self.runner.place(slot, self.runner.stage(adapter))
        return slot

    def _batch(self, encoded: Sequence[Encoded], slots: Sequence[int]) -> Batch:
        return pad(encoded, slots, self.tokenizer.pad_id)


def open_bench(export: Path, tokens: int, threads: int, adapters: int = ROWS, kind: Kind = WHOLE) -> Bench:
    """A bench of so many adapters of a kind on the export in `export`, with sentences of `tokens` tokens."""
    tokenizer = Tokenizer(export / "tokenizer.json")
    runner = OnnxRunner(export, adapters + 2, threads)
    workload = make_workload(runner.spec, tokenizer, adapters, tokens, kind)
    runner.place(0, runner.stage(foundation_adapter(runner.spec)))
    for slot, adapter in enumerate(workload.adapters(runner.spec), start=1):
        runner.place(slot, runner.stage(adapter))
    return Bench(runner, tokenizer, workload, workload.encoded(tokenizer, runner.spec))

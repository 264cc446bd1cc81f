"""A tiny foundation with all that the parity tests compare on it, each made once, when first asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle, write_bundle
from rootstock.adapters.bundle.kinds.methods import CONVERTED
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import Adapter, HeadSpec, Preprocessing
from rootstock.service.engine.core.catalog import own_adapters
from rootstock.service.engine.encode.batch import Encoder
from rootstock.service.engine.encode.modalities.text import Input, TextSample, Tokenizer, pad
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.parity.foundations import make_tiny
from tests.parity.matrix import ARCHITECTURES, KINDS, Cell, alone, is_rare, served
from tests.parity.oracle import Oracle
from tests.peft_adapters import PeftAdapter

# Different lengths; beyond the window of ModernBERT's local attention and DeBERTa's buckets; one pair. In each
# there is something to fill in, by whatever token stands for it.
INPUTS: tuple[Input, ...] = (
    "[MASK]",
    "The new headphones sound [MASK], and the left ear cup broke within a [MASK] of careful use.",
    ("Where did they meet?", "Ada Lovelace met Charles Babbage in [MASK] in June 1833."),
)
MAX_RANK = 64
# For every cell on each runner, and again without its updates.
_SLOTS = 256


@dataclass(frozen=True)
class Served:
    """An adapter as the engine has it, and PEFT's answer to each of INPUTS; with a task in place of a cell, the
    bare foundation and transformers' answer."""

    cell: Cell | str
    adapter: Adapter
    expected: Sequence[np.ndarray]


class Bench:
    """A tiny foundation of an architecture, in a folder."""

    def __init__(self, architecture: str, root: Path) -> None:
        self.tiny = make_tiny(ARCHITECTURES[architecture], root / "model")
        self.oracle = Oracle(self.tiny)
        self._root = root
        self._runners: dict[str, Encoder] = {}
        self._slots: dict[tuple[str, str], int] = {}
        self.tokenizer = Tokenizer(self.tiny.folder / "tokenizer.json")
        limits = Preprocessing(self.tiny.spec.max_tokens)
        mask = self.tiny.mask[0]
        inputs = [
            text.replace("[MASK]", mask) if isinstance(text, str) else (text[0], text[1].replace("[MASK]", mask))
            for text in INPUTS
        ]
        self.rows = [self.tokenizer.encode(value, limits, truncate=False) for value in inputs]
        self.served = functools.cache(self._serve)

    def everything(self) -> list[Served]:
        """Every cell of the architecture that is not rare, and the foundation alone for each of its tasks."""
        name = self.tiny.architecture.name
        cells = [cell for cell in served(name) if not is_rare(cell)]
        return [*map(self.served, alone(name)), *map(self.served, cells)]

    def saved(self, cell: Cell) -> PeftAdapter:
        """What PEFT saved of a cell."""
        folder = self._root / cell.task / cell.kind
        if not folder.exists():
            self.oracle.save(cell, folder)
        return PeftAdapter(folder, cell.task, 0)

    def opened(self, cell: Cell, data: bytes) -> Adapter:
        """The adapter in a plain folder's zip, as an upload that names the task opens it."""
        tiny = self.tiny
        bundle = open_bundle(data, Limits(), tiny.spec, PlainFields(task=cell.task), tiny.weights)
        if cell.kind == "lora-pooler" and cell.task == "feature-extraction":
            # A plain folder takes the foundation's own pooling, which here is the mean.
            bundle = write_bundle(
                replace(bundle.manifest, head=HeadSpec("linear", pooling="pooler")), bundle.files
            )
        return bundle.adapter(tiny.spec, MAX_RANK, tiny.weights)

    def run(self, runner: str, rows: Sequence[tuple[Adapter, int]]) -> list[np.ndarray]:
        """The raw outputs of one batch. A row: an adapter, which stays in its slot, and which input it gets."""
        return self.outputs(runner, [(adapter, self.rows[i]) for adapter, i in rows])

    def outputs(self, runner: str, rows: Sequence[tuple[Adapter, TextSample]]) -> list[np.ndarray]:
        """The raw outputs of one batch of any rows, each under an adapter."""
        slots = [self._slot(runner, adapter) for adapter, _ in rows]
        encoded = [row for _, row in rows]
        return list(self._runners[runner].run(pad(encoded, slots, self.tiny.pad_id)))

    def _slot(self, runner: str, adapter: Adapter) -> int:
        if runner not in self._runners:
            self._runners[runner] = self._open(runner)
        slot = self._slots.get((runner, adapter.digest))
        if slot is None:
            slot = self._slots[runner, adapter.digest] = len(self._slots)
            engine = self._runners[runner]
            engine.place(slot, engine.stage(adapter))
        return slot

    def _open(self, runner: str) -> Encoder:
        tiny = self.tiny
        if runner == "torch":
            return TorchRunner(tiny.folder, tiny.spec, slots=_SLOTS, device="cpu")
        out = self._root / "export"
        export(tiny.folder, tiny.spec, out)
        return OnnxRunner(out, slots=_SLOTS, threads=1)

    def _serve(self, cell: Cell | str) -> Served:
        if isinstance(cell, str):
            return Served(cell, own_adapters(self.tiny.spec)[cell], self.oracle.answers(cell, None, self.rows))
        saved = self.saved(cell)
        data = saved.zip()
        if KINDS[cell.kind].peft in CONVERTED:
            data = convert(data, locate(str(self.tiny.folder)), MAX_RANK, cell.task).data
        expected = self.oracle.answers(cell, saved.folder, self.rows)
        return Served(cell, self.opened(cell, data), expected)

"""A tiny foundation of images or recordings with all that the parity tests compare on it, each made once."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.bundle import Bundle, Limits, Manifest, PlainFields, open_bundle, unpack, write_bundle
from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Adapter, Array, FoundationSpec, HeadSpec
from rootstock.service.engine.core.catalog import own_adapters
from rootstock.service.engine.encode.batch import Encoder, assemble
from rootstock.service.engine.encode.modalities.foundation_reader import open_reader
from rootstock.service.engine.encode.sample import SampleArrays
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.parity.matrix import Cell
from tests.parity.media_matrix import media_task
from tests.parity.media_oracle import MediaOracle, labels, make_tiny_media, normalizes
from tests.peft_adapters import PeftAdapter

MAX_RANK = 64
_SLOTS = 256
# The lengths of the wave forms, in samples: rows of other lengths are in other batches.
_LENGTHS = (800, 1230)
INPUTS = 2


@dataclass(frozen=True)
class Drawn:
    """An input as the trunk takes it, with random numbers."""

    name: str
    array: Array
    key: bytes
    cost: int
    outputs: int = 1


@dataclass(frozen=True)
class ServedMedia:
    """An adapter as the engine has it, and PEFT's answer to each input; without a cell the bare foundation and
    transformers' answer."""

    cell: Cell | None
    adapter: Adapter
    expected: Sequence[Array]


class MediaBench:
    """A tiny foundation of an architecture, in a folder."""

    def __init__(self, architecture: str, root: Path) -> None:
        self.tiny = make_tiny_media(architecture, root / "model")
        self.oracle = MediaOracle(self.tiny)
        self._root = root
        self._runners: dict[str, Encoder] = {}
        self._slots: dict[tuple[str, str], int] = {}
        self.inputs = _draw(self.tiny.spec)
        self.served = functools.cache(self._serve)

    def saved(self, cell: Cell) -> PeftAdapter:
        """What PEFT saved of a cell."""
        folder = self._root / cell.task / cell.kind
        if not folder.exists():
            self.oracle.save(cell, folder)
        return PeftAdapter(folder, cell.task, 0)

    def opened(self, cell: Cell, data: bytes) -> Adapter:
        """The adapter in a plain folder's zip, as an upload opens it; a linear head's bundle says its pooling."""
        spec, task = self.tiny.spec, media_task(cell)
        if cell.task == "linear-head":
            data = _with_linear_head(cell, unpack(data, Limits()), spec).to_zip()
        fields = PlainFields() if cell.task == "linear-head" else PlainFields(task=task)
        return open_bundle(data, Limits(), spec, fields).adapter(spec, MAX_RANK, self.tiny.weights)

    def run(self, runner: str, rows: Sequence[tuple[Adapter, int]]) -> list[Array]:
        """The raw outputs of rows, each an adapter and the number of its input; rows of one shape in a batch."""
        outputs: dict[int, Array] = {}
        for shape in {drawn.array.shape for drawn in self.inputs}:
            places = [i for i, (_, which) in enumerate(rows) if self.inputs[which].array.shape == shape]
            if not places:
                continue
            slots = [self._slot(runner, rows[i][0]) for i in places]
            batch = assemble([self.inputs[rows[i][1]] for i in places], slots, _stack)
            outputs |= dict(zip(places, self._runners[runner].run(batch), strict=True))
        return [outputs[i] for i in range(len(rows))]

    def answer(self, runner: str, adapter: Adapter, file: ImageFile | AudioFile) -> Any:
        """The engine's answer for a file, with all labels: its reader, its runner, its post-processing."""
        reader: Any = open_reader(self.tiny.spec, self.tiny.folder)
        sample = reader.read(file)
        slot = self._slot(runner, adapter)
        raws = self._runners[runner].run(assemble([sample], [slot], reader.collate))
        return TASKS[adapter.task].predict(raws, [sample], adapter, {"top_k": None}, reader)

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

    def _serve(self, cell: Cell | None) -> ServedMedia:
        arrays = [drawn.array for drawn in self.inputs]
        if cell is None:
            adapter = own_adapters(self.tiny.spec)[f"{self.tiny.spec.modality}-feature-extraction"]
            return ServedMedia(None, adapter, self.oracle.answers(None, None, arrays))
        saved = self.saved(cell)
        return ServedMedia(cell, self.opened(cell, saved.zip()), self.oracle.answers(cell, saved.folder, arrays))


def _with_linear_head(cell: Cell, files: Mapping[str, bytes], spec: FoundationSpec) -> Bundle:
    """The bundle of a PEFT folder whose weights hold a linear head's too, which no plain folder has."""
    task_class = spec.class_for(media_task(cell))
    targets = read_config(json.loads(files[CONFIG])).targets(task_class)
    manifest = Manifest(
        task=media_task(cell),
        problem_type="single_label_classification",
        head=HeadSpec("linear", pooling=spec.embedding.pooling, normalize=normalizes(cell)),
        labels=tuple(f"LABEL_{i}" for i in range(labels(cell))),
        preprocessing=None,
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(task_class.prefix) for name in targets)),
        files={},
    )
    return write_bundle(manifest, {name: files[name] for name in (CONFIG, WEIGHTS)})


def _draw(spec: FoundationSpec) -> list[Drawn]:
    shapes = [spec.input_shape] * INPUTS
    if None in spec.input_shape:
        shapes = [(length,) for length in _LENGTHS]
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
    return [Drawn(spec.inputs[0], array, bytes([i]), spec.max_tokens) for i, array in enumerate(arrays)]


def _stack(samples: Sequence[Drawn]) -> SampleArrays:
    arrays = {samples[0].name: np.stack([sample.array for sample in samples])}
    return SampleArrays(arrays, tuple(sample.cost for sample in samples), frozenset())

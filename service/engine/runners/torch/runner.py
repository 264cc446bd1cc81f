"""Run batches on torch: any foundation that transformers loads, on CUDA if there is a CUDA device.

A batch becomes one integer array, and for images and audio another of the inputs (feed.py). The trunk (trunk.py)
reads them together with the updates of the adapters in slots (updates.py), which lie in pages (pages.py). Then
the heads run (heads.py), all heads of one form in one call. On CUDA, batches of a form that recurs are replayed
as a CUDA graph (graphs.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from rootstock.adapters.spec import Adapter, Array, FoundationSpec
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.sharing import SharingPlan, share
from rootstock.service.engine.runners.torch.feed import feed, flat
from rootstock.service.engine.runners.torch.graphs import Graphs
from rootstock.service.engine.runners.torch.heads import Heads
from rootstock.service.engine.runners.torch.staging import Block, Copier, DeviceCopy, to_device
from rootstock.service.engine.runners.torch.trunk import TorchTrunk
from rootstock.service.engine.runners.torch.updates import Item, Pool, Updates
from rootstock.service.engine.runners.torch_cores import TorchCores

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# An answer x may differ from PEFT's in fp32 by at most t + t * |x|, with this t.
TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2}
_GRAPHS = 128
# Selecting states before each layer costs time too. Below this share of saved work, rows do not share states.
_WORTH_SHARING = 0.1


@dataclass(frozen=True)
class _StagedTorch:
    """An adapter whose copy to the device has begun: the items of its updates, and the copy of its arrays."""

    adapter: Adapter
    items: Mapping[Pool, Sequence[Item]]
    copied: DeviceCopy


class TorchRunner:
    """A runner of a foundation on torch: the trunk in `precision`, the heads in fp32.

    `precision` is "fp32" or "bf16"; by default "bf16" on CUDA and "fp32" elsewhere. `device` is CUDA by default
    if there is a CUDA device. `graphs` is the number of CUDA graphs to keep (128 on CUDA, 0 on a CPU). With any,
    batches are rounded up to few shapes. `adapter_bytes` limits the device memory for the updates of all slots.
    Without it, they take as much as they need.
    """

    name = "torch"

    def __init__(
        self,
        folder: Path,
        spec: FoundationSpec,
        slots: int,
        threads: int | None = None,
        device: str | None = None,
        precision: str | None = None,
        graphs: int | None = None,
        adapter_bytes: int | None = None,
    ) -> None:
        """Load the foundation from a folder. Raise ValueError for an unknown precision."""
        self._cores = TorchCores(threads)
        self.spec = spec
        self.slots = slots
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_cuda = self.device.type == "cuda"
        self.precision = precision or ("bf16" if on_cuda else "fp32")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; expected one of: {', '.join(PRECISIONS)}")
        self.tolerance = TOLERANCES[self.precision]
        dtype = PRECISIONS[self.precision]
        self._copier = Copier(self.device)
        self._graphs = Graphs(self.device, (_GRAPHS if on_cuda else 0) if graphs is None else graphs)
        self._updates = Updates(spec, slots, dtype, self.device, adapter_bytes)
        self._trunk = TorchTrunk(folder, spec, self._updates, dtype, self.device)
        self._heads = Heads(folder, spec, self.device)
        self._depths: dict[int, int] = {}

    def warm(self, adapter: Adapter) -> None:
        """Create the task class of the adapter's head. Any thread may call it."""
        self._heads.open(adapter.head)

    @torch.inference_mode()
    def stage(self, adapter: Adapter) -> _StagedTorch:
        """Make room for the adapter's arrays on the device, and begin to copy them.

        Raise RunnerFault without room.
        """
        self._heads.open(adapter.head)
        items = self._updates.items(adapter.weights.sites, adapter.weights.words)
        blocks = [Block([item.array for item in group], pool.rows * pool.width) for pool, group in items.items()]
        head = Block([array for _, array in sorted(adapter.weights.head.items())])
        return _StagedTorch(adapter, items, self._copier.copy([*blocks, head]))

    @torch.inference_mode()
    def place(self, slot: int, staged: _StagedTorch) -> None:
        """Put a staged adapter into a slot, after the batches queued on the device and before later ones."""
        staged.copied.wait()
        *updates, head = staged.copied.blocks
        self._updates.place(slot, staged.items, updates, staged.adapter.weights.words)
        self._heads.place(slot, staged.adapter, head)
        self._depths[slot] = self.spec.unchanged(staged.adapter.weights)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._updates.clear(slot)
        self._heads.clear(slot)
        self._depths.pop(slot, None)

    @torch.inference_mode()
    def run(self, batch: Batch) -> list[Array]:
        """Return the raw head output of each row, in the shapes of batch.Encoder."""
        self._cores.use()
        plan = self._plan(batch)
        form, arrays = feed(batch, plan, self.spec, self._updates, rounded=self._graphs.most > 0)
        key = "trunk", form, self._updates.growths
        outputs = self._graphs.run(
            key, partial(self._trunk.run, form), *(to_device(a, self.device) for a in arrays)
        )
        return self._heads.run(batch, plan.states, outputs, self._graphs)

    def _plan(self, batch: Batch) -> SharingPlan:
        """Return the plan of the states that rows share. They share none if that would save too little."""
        layers, rows = self.spec.layers, range(len(batch.inputs))
        if len(batch.lengths) == len(batch.inputs):
            return SharingPlan(flat(batch.inputs, batch.slots, layers), tuple(rows))
        plan = share(batch.inputs, batch.slots, self._depths, layers)
        if plan.saving > _WORTH_SHARING:
            return plan
        return SharingPlan(flat(plan.inputs, plan.levels[-1].slots, layers), plan.states)

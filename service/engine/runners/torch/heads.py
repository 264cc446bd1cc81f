"""Run heads on a device. Heads of one form are stacked, so that one call computes all their rows of a batch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootstock.adapters.spec import Adapter, Array, FoundationSpec, HeadSpec, MaskedLM
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.linear_head import at_masks
from rootstock.service.engine.runners.modules import MaskedLMHead, TaskHead
from rootstock.service.engine.runners.torch.graphs import Graphs
from rootstock.service.engine.runners.torch.staging import to_device
from rootstock.service.engine.runners.torch.updates import power

_FIRST = 8
Named = Mapping[str, Tensor]


class HeadForm(NamedTuple):
    """The form of a head. Heads of one form differ only in their numbers.

    `shapes` holds the shape of each tensor, with the label count rounded up to a power of two.
    """

    head: HeadSpec
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Place:
    """The place of a slot's head: its number among the heads of its form.

    `labels` is its label count, or None if the head has no label dimension and all its outputs count.
    """

    form: HeadForm
    number: int
    labels: int | None


class Heads:
    """The heads of the adapters in slots, in fp32 for any precision of the trunk."""

    def __init__(self, folder: Path, spec: FoundationSpec, device: torch.device) -> None:
        self._folder = folder
        self._spec = spec
        self._device = device
        self._models: dict[str, nn.Module] = {}
        self._opening = threading.Lock()
        self._stacks: dict[HeadForm, _Stack] = {}
        self._placed: dict[int, Place] = {}

    def open(self, head: HeadSpec) -> None:
        """Create the task class of a head, if it has one. Any thread may call it."""
        name = head.class_name
        if name is None:
            return
        with self._opening:
            if name not in self._models:
                model = (
                    MaskedLMHead(self._folder)
                    if head.kind == "masked-lm"
                    else TaskHead(self._folder, self._spec, self._spec.classes[name], labels=1)
                )
                self._models[name] = model.to(self._device)

    def place(self, slot: int, adapter: Adapter, values: Tensor) -> None:
        """Put an adapter's head into a slot. `values` holds its tensors one after the other, sorted by name."""
        self.clear(slot)
        form, labels = self._form(adapter)
        stack = self._stacks.setdefault(form, _Stack(form, self._device))
        number = stack.take()
        for name, array in sorted(adapter.weights.head.items()):
            stack.write(number, name, values[: array.size].view(array.shape))
            values = values[array.size :]
        self._placed[slot] = Place(form, number, labels)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        place = self._placed.pop(slot, None)
        if place is not None:
            self._stacks[place.form].give(place.number)

    def run(self, batch: Batch, states: Sequence[int], outputs: Sequence[Tensor], graphs: Graphs) -> list[Array]:
        """Return the raw head output of each row (batch.Encoder). Each form of head runs once, over its rows.

        `states` holds the trunk's state that each row reads. `outputs` holds, for all states, hidden and, with a
        pooler, pooled.
        """
        groups: dict[HeadForm, list[int]] = {}
        for row, slot in enumerate(batch.slots):
            groups.setdefault(self._placed[slot].form, []).append(row)
        parts = {form: batch.only(rows) for form, rows in groups.items()}
        raw = [
            self._run_group(parts[form], form, [states[row] for row in rows], outputs, graphs)
            for form, rows in groups.items()
        ]
        # One copy serves all groups, so that the host waits for the device only once.
        host = torch.cat([one.reshape(-1) for one in raw]).cpu().numpy()
        results: list[Array] = [np.empty(0, np.float32)] * len(batch.slots)
        for (form, rows), one in zip(groups.items(), raw, strict=True):
            values, host = host[: one.numel()].reshape(one.shape), host[one.numel() :]
            for row, value in zip(rows, self._by_row(parts[form], form, values), strict=False):
                kept = value[: batch.lengths[batch.inputs[row]]] if value.ndim > 1 else value
                results[row] = kept[..., : self._placed[batch.slots[row]].labels]
        return results

    def _run_group(
        self, batch: Batch, form: HeadForm, states: Sequence[int], outputs: Sequence[Tensor], graphs: Graphs
    ) -> Tensor:
        """Run a batch whose heads are all of one form. With `graphs`, round it up with rows that nobody reads."""
        if form.head.kind == "masked-lm":
            return self._fill_masks(batch, form, states, outputs[0], graphs)
        rows, text = len(states), self._spec.modality == "text"
        tokens = outputs[0].shape[1] if text else 0
        heads = [self._placed[slot].number for slot in batch.slots]
        single = not graphs.most and len(set(heads)) == 1
        numbers = np.zeros((power(rows) if graphs.most else rows, 2 + tokens), np.int64)
        numbers[:rows, 0] = states
        numbers[:rows, 1] = heads
        if text:
            numbers[:rows, 2 : 2 + batch.longest] = batch.arrays["attention_mask"][list(batch.inputs)]
        key = "head", form, numbers.shape, outputs[0].shape, self._stacks[form].growths
        compute = partial(self._compute, form, single)
        return graphs.run(key, compute, to_device(numbers, self._device), *outputs)[0]

    def _by_row(self, batch: Batch, form: HeadForm, values: Array) -> Sequence[Array]:
        """Return a group's outputs row by row. Rows of padding, which nobody reads, may follow the last one."""
        if form.head.kind != "masked-lm":
            return list(values)
        return np.split(values, self._masks(batch).sum(axis=1).cumsum())

    def _fill_masks(
        self, batch: Batch, form: HeadForm, states: Sequence[int], hidden: Tensor, graphs: Graphs
    ) -> Tensor:
        """Run the foundation's own head at the mask tokens of all rows: (masks, vocabulary), row by row."""
        model = self._models[str(form.head.class_name)]
        rows, tokens = np.nonzero(self._masks(batch))
        places = np.zeros(power(len(rows)) if graphs.most else len(rows), np.int64)
        places[: len(rows)] = np.asarray(states)[rows] * hidden.shape[1] + tokens

        def compute(places: Tensor, hidden: Tensor) -> tuple[Tensor]:
            return (model(hidden.flatten(0, 1).index_select(0, places).float()),)

        key = "head", form, places.shape, hidden.shape
        return graphs.run(key, compute, to_device(places, self._device), hidden)[0]

    def _masks(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return (rows, tokens): true at the tokens that the foundation's own head reads."""
        masked_lm, inputs = cast(MaskedLM, self._spec.masked_lm), list(batch.inputs)
        return at_masks(
            batch.arrays["input_ids"][inputs], batch.arrays["attention_mask"][inputs], masked_lm.mask_id
        )

    def _compute(self, form: HeadForm, single: bool, numbers: Tensor, *outputs: Tensor) -> tuple[Tensor]:
        """Return the raw output of each row, in fp32: (rows, labels) or (rows, tokens, labels).

        `numbers` holds each row's state, its head and for texts its mask. With `single`, all rows have the same
        head.
        """
        states, heads, mask = numbers[:, 0], numbers[:, 1], numbers[:, 2:]
        weights = self._stacks[form].read(heads[:1] if single else heads)
        inputs = {"mask": mask} if mask.shape[1] else {}
        for name, output in zip(("hidden", "pooled"), outputs, strict=False):
            inputs[name] = output.index_select(0, states).float()
        if form.head.class_name is None:
            return (_linear(form.head, weights, inputs),)
        call = partial(_classify, self._models[form.head.class_name])
        if single:
            return (call({name: tensor[0] for name, tensor in weights.items()}, inputs),)
        # Compute each row as a batch of one with its own weights.
        rows: Tensor = torch.vmap(lambda w, i: call(w, {n: v[None] for n, v in i.items()})[0])(weights, inputs)
        return (rows,)

    def _form(self, adapter: Adapter) -> tuple[HeadForm, int | None]:
        head, weights = adapter.head, adapter.weights.head
        free: Mapping[str, tuple[int | None, ...]] = {"head.weight": (None, 0), "head.bias": (None,)}
        if head.kind == "hf" and head.class_name is not None:
            free = self._spec.classes[head.class_name].head
        shapes, labels = [], None
        for name, array in sorted(weights.items()):
            shape = list(array.shape)
            for i, dimension in enumerate(free[name]):
                if dimension is None:
                    labels = shape[i]
                    shape[i] = power(labels)
            shapes.append((name, tuple(shape)))
        return HeadForm(head, tuple(shapes)), labels


class _Stack:
    """The stacked tensors of the heads of one form, each (heads, …). They grow as needed."""

    def __init__(self, form: HeadForm, device: torch.device) -> None:
        self._tensors = {name: torch.zeros(0, *shape, device=device) for name, shape in form.shapes}
        self._count = 0
        self._free: list[int] = []
        self.growths = 0

    def take(self) -> int:
        if not self._free:
            added = max(self._count, _FIRST)
            for name, tensor in self._tensors.items():
                self._tensors[name] = torch.cat([tensor, tensor.new_zeros(added, *tensor.shape[1:])])
            self._free = list(range(self._count + added - 1, self._count - 1, -1))
            self._count += added
            self.growths += 1
        return self._free.pop()

    def give(self, number: int) -> None:
        self._free.append(number)

    def write(self, number: int, name: str, values: Tensor) -> None:
        """Set one tensor of a head. Labels beyond the head's own keep old numbers; nobody reads their outputs."""
        self._tensors[name][number][tuple(slice(size) for size in values.shape)] = values

    def read(self, numbers: Tensor) -> dict[str, Tensor]:
        return {name: tensor.index_select(0, numbers) for name, tensor in self._tensors.items()}


def _classify(model: nn.Module, weights: Named, states: Named) -> Tensor:
    """Return the logits of a task class with these weights for the trunk's output."""
    outputs = {name: value for name, value in states.items() if name != "mask"}
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    logits: Tensor = torch.func.functional_call(model, named, (outputs, states.get("mask")))
    return logits


def _linear(head: HeadSpec, weights: Named, states: Named) -> Tensor:
    """Return the output of the linear head (HeadSpec), with the arithmetic of runners.linear_head."""
    hidden, mask = states["hidden"], states.get("mask")
    if hidden.dim() == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if head.pooling == "pooler":
        vectors = states["pooled"].flatten(1)
    elif head.pooling == "cls":
        vectors = hidden[:, 0]
    elif mask is None:
        vectors = hidden[:, -1] if head.pooling == "last" else hidden.mean(dim=1)
    elif head.pooling == "last":
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        vectors = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
    else:
        shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        vectors = torch.bmm(shares[:, None], hidden)[:, 0]
    if head.normalize:
        vectors = nn.functional.normalize(vectors, dim=1, eps=1e-12)
    if "head.weight" in weights:
        vectors = torch.matmul(weights["head.weight"], vectors[:, :, None])[:, :, 0]
        if "head.bias" in weights:
            vectors = vectors + weights["head.bias"]
    return vectors

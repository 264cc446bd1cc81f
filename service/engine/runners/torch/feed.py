"""A batch as one array of whole numbers, and its form: all that decides which kernels compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.sharing import Level, SharingPlan
from rootstock.service.engine.runners.torch.updates import Updates, power

Ints = npt.NDArray[np.int64]

_LEAST_TOKENS = 16


class Form(NamedTuple):
    """Batches of one form differ in numbers alone.

    `states`: how many each layer computes, and the pooler; `updated`: how many updates there are for them, all or
    one that stands for all. `parents`: the layers ahead of which hidden states are selected from those of the
    layer before; `roots`: those ahead of which the mask is. `uses`: see Updates.uses.
    """

    tokens: int
    states: tuple[int, ...]
    updated: tuple[int, ...]
    parents: tuple[int, ...]
    roots: tuple[int, ...]
    uses: bytes


def feed(
    batch: Batch, plan: SharingPlan, spec: FoundationSpec, updates: Updates, rounded: bool
) -> tuple[Form, Ints]:
    """Return the form of a batch under a plan, and its numbers in the order that Trunk.run reads them.

    `rounded`: states, tokens and pages go up to the next of few sizes. What is added computes
    answers that nobody reads.
    """
    levels = plan.levels
    states = tuple(power(len(level)) if rounded else len(level) for level in levels)
    length = batch.longest
    tokens = token_size(length, spec.max_tokens) if rounded else length
    # Layers with the same states share one array.
    made = {level.slots: _slots(level, count, updates.bare) for level, count in zip(levels, states, strict=True)}
    slots = [made[level.slots] for level in levels]
    single = [not rounded and bool((those == those[0]).all()) for those in slots]
    parents = tuple(i for i in range(1, len(levels)) if not _same(levels[i].parents, len(levels[i - 1])))
    roots = tuple(i for i in range(1, len(levels) - 1) if not _same(levels[i].roots, len(levels[0])))
    updated = tuple(1 if one else count for one, count in zip(single, states, strict=True))
    form = Form(tokens, states, updated, parents, roots, updates.uses(slots, rounded))
    numbers = [
        *_inputs(batch, levels[0].parents, states[0], tokens, spec.inputs),
        *(_padded(levels[i].parents, states[i]) for i in parents),
        *(_padded(levels[i].roots, states[i]) for i in roots),
        *updates.numbers(updates.gathers(form.updated, form.uses), slots),
    ]
    return form, np.concatenate([part.ravel() for part in numbers])


def flat(inputs: Sequence[int], slots: Sequence[int | None], layers: int) -> tuple[Level, ...]:
    """Return the levels of a plan that shares nothing: one state for each input and slot, all the way."""
    one = tuple(range(len(inputs)))
    chosen = tuple(slots)
    return (Level(tuple(inputs), one, chosen), *(Level(one, one, chosen) for _ in range(layers)))


def token_size(tokens: int, most: int) -> int:
    """Return a length to compute with, no smaller: eight to each doubling, multiples of 16, at most `most`."""
    step = max(_LEAST_TOKENS, power(tokens) // _LEAST_TOKENS)
    return min(-(-tokens // step) * step, most)


def _inputs(batch: Batch, chosen: Sequence[int], states: int, tokens: int, names: Sequence[str]) -> list[Ints]:
    padded = []
    for name in names:
        array = np.zeros((states, tokens), np.int64)
        array[: len(chosen), : batch.longest] = batch.arrays[name][list(chosen)]
        padded.append(array)
    return padded


def _slots(level: Level, count: int, bare: int) -> Ints:
    slots = np.full(count, bare, np.int64)
    slots[: len(level)] = [bare if slot is None else slot for slot in level.slots]
    return slots


def _same(selected: Sequence[int], count: int) -> bool:
    """Tell whether selecting these of so many changes nothing."""
    return tuple(selected) == tuple(range(count))


def _padded(indices: Sequence[int], count: int) -> Ints:
    padded = np.zeros(count, np.int64)
    padded[: len(indices)] = indices
    return padded

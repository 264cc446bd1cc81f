"""Turn a batch into one integer array and a form, which decides the kernels that compute it."""

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
    """The form of a batch. Batches of one form differ only in their numbers.

    `states` counts the states that each layer, and then the pooler, computes. `updated` counts their updates: one
    for each state, or one for all. `parents` lists the layers before which hidden states are selected from those
    of the layer before. `roots` lists the layers before which the mask is selected. `uses` is that of
    Updates.uses.
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
    """Return the form of a batch under a plan, and its numbers in the order in which TorchTrunk.run reads them.

    With `rounded`, states, tokens and pages are rounded up to one of few sizes. Nobody reads the outputs of the
    padding.
    """
    levels = plan.levels
    states = tuple(power(len(level)) if rounded else len(level) for level in levels)
    length = batch.longest
    tokens = token_size(length, spec.max_tokens) if rounded else length
    # Layers with the same states share one array.
    arrays = {
        level.slots: _slots(level, count, updates.bare) for level, count in zip(levels, states, strict=True)
    }
    slots = [arrays[level.slots] for level in levels]
    single = [not rounded and bool((array == array[0]).all()) for array in slots]
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
    """Return the levels of a plan that shares nothing: one state for each input and slot at every layer."""
    one = tuple(range(len(inputs)))
    chosen = tuple(slots)
    return (Level(tuple(inputs), one, chosen), *(Level(one, one, chosen) for _ in range(layers)))


def token_size(tokens: int, most: int) -> int:
    """Return a padded length of at least `tokens` and at most `most`.

    It is `most` or a multiple of 16. Each doubling has eight of these lengths.
    """
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
    """Tell whether selecting these indices of `count` entries changes nothing."""
    return tuple(selected) == tuple(range(count))


def _padded(indices: Sequence[int], count: int) -> Ints:
    padded = np.zeros(count, np.int64)
    padded[: len(indices)] = indices
    return padded

"""Turn a batch into arrays of numbers and a form, which decides the kernels that compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.adapters.vocabulary.words import within
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.sharing import Level, SharingPlan
from rootstock.service.engine.runners.torch.updates import Updates, power

Ints = npt.NDArray[np.int64]

_LEAST_TOKENS = 16


class Form(NamedTuple):
    """The form of a batch. Batches of one form differ only in their numbers.

    `shape` is that of one input: of a text, its padded tokens. `states` counts the states that each layer, and
    then the pooler, computes. `updated` counts their updates: one for each state, or one for all. `parents` lists
    the layers before which hidden states are selected from those of the layer before. `roots` lists the layers
    before which the mask is selected. `uses` is that of Updates.uses. `words` tells whether a state changes the
    word embedding.
    """

    shape: tuple[int, ...]
    states: tuple[int, ...]
    updated: tuple[int, ...]
    parents: tuple[int, ...]
    roots: tuple[int, ...]
    uses: bytes
    words: bool


def feed(
    batch: Batch, plan: SharingPlan, spec: FoundationSpec, updates: Updates, rounded: bool
) -> tuple[Form, tuple[Ints] | tuple[Ints, Array]]:
    """Return the form of a batch under a plan, and its numbers in the order in which TorchTrunk.run reads them.

    The inputs of images and audio are a second array, because they are no integers: (states, …) in fp32. With
    `rounded`, states, tokens and pages are rounded up to one of few sizes. Nobody reads the outputs of the
    padding. Recordings keep their length, because an answer depends on it.
    """
    levels = plan.levels
    states = tuple(power(len(level)) if rounded else len(level) for level in levels)
    inputs = _inputs(batch, levels[0].parents, states[0], spec, rounded)
    # Layers with the same states share one array.
    arrays = {
        level.slots: _slots(level, count, updates.bare) for level, count in zip(levels, states, strict=True)
    }
    slots = [arrays[level.slots] for level in levels]
    single = [not rounded and bool((array == array[0]).all()) for array in slots]
    parents = tuple(i for i in range(1, len(levels)) if not _same(levels[i].parents, len(levels[i - 1])))
    roots = tuple(i for i in range(1, len(levels) - 1) if not _same(levels[i].roots, len(levels[0])))
    updated = tuple(1 if one else count for one, count in zip(single, states, strict=True))
    words = spec.words is not None and updates.changes_words(slots[0])
    form = Form(inputs[0].shape[1:], states, updated, parents, roots, updates.uses(slots, rounded), words)
    pages: list[Ints] = []
    if words and spec.words is not None:
        at = spec.inputs.index("input_ids")
        pages = [updates.word_pages(slots[0], inputs[at])]
        inputs[at] = within(inputs[at], spec.words)
    numbers = [
        *(array for array in inputs if array.dtype == np.int64),
        *pages,
        *(_padded(levels[i].parents, states[i]) for i in parents),
        *(_padded(levels[i].roots, states[i]) for i in roots),
        *updates.numbers(updates.gathers(form.updated, form.uses), slots),
    ]
    packed = np.concatenate([np.empty(0, np.int64), *(part.ravel() for part in numbers)])
    return form, (packed,) if spec.modality == "text" else (packed, inputs[0])


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


def _inputs(
    batch: Batch, chosen: Sequence[int], states: int, spec: FoundationSpec, rounded: bool
) -> list[npt.NDArray[Any]]:
    """Return the trunk's inputs for the states that begin with the chosen inputs, padded with zeros."""
    padded = []
    for name in spec.inputs:
        array = batch.arrays[name]
        shape = array.shape[1:]
        if rounded and spec.modality == "text":
            shape = (token_size(batch.longest, spec.max_tokens),)
        whole = np.zeros((states, *shape), array.dtype)
        whole[(slice(len(chosen)), *map(slice, array.shape[1:]))] = array[list(chosen)]
        padded.append(whole)
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

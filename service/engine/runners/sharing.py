"""Plan which states the rows of a batch share, so that each layer of the trunk computes each state once.

A row is an input under the adapter of a slot. Below the first layer that the adapter changes, the row's hidden
states are those of the bare foundation on that input. At each layer, the rows of one input whose adapters have
changed nothing so far share one state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """The states of one layer, with one entry for each state.

    `parents` holds its state at the layer before, or for the first layer its input. `roots` holds its state at
    the first layer. `slots` holds the slot whose adapter has changed it so far, or None.
    """

    parents: tuple[int, ...]
    roots: tuple[int, ...]
    slots: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.parents)


@dataclass(frozen=True)
class SharingPlan:
    """The plan of a batch: a level for each layer and one for the pooler.

    `states[i]` is row i's state at the last.
    """

    levels: tuple[Level, ...]
    states: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Return the input of each state of the last level."""
        first, last = self.levels[0], self.levels[-1]
        return tuple(first.parents[root] for root in last.roots)

    @property
    def saving(self) -> float:
        """Return the share of the layers' work saved, compared with the last level's states at every layer."""
        layers = self.levels[:-1]
        return 1.0 - sum(map(len, layers)) / (len(layers) * len(self.levels[-1]))


def share(inputs: Sequence[int], slots: Sequence[int], depths: Mapping[int, int], layers: int) -> SharingPlan:
    """Return the plan for rows of these inputs and slots.

    `depths[slot]` is the number of layers that the slot's adapter leaves unchanged (FoundationSpec.depth). It is
    `layers` for an adapter that begins at the pooler, and `layers + 1` for one that changes nothing of the trunk.
    """
    levels: list[Level] = []
    before: dict[tuple[int, int | None], int] = {}
    for layer in range(layers + 1):
        states: dict[tuple[int, int | None], int] = {}
        parents: list[int] = []
        roots: list[int] = []
        for source, slot in zip(inputs, slots, strict=True):
            key = (source, slot if depths[slot] <= layer else None)
            if key in states:
                continue
            if layer == 0:
                parents.append(source)
                roots.append(len(states))
            else:
                parent = before[source, slot if depths[slot] < layer else None]
                parents.append(parent)
                roots.append(levels[-1].roots[parent])
            states[key] = len(states)
        levels.append(Level(tuple(parents), tuple(roots), tuple(slot for _, slot in states)))
        before = states
    last = (
        before[source, slot if depths[slot] <= layers else None]
        for source, slot in zip(inputs, slots, strict=True)
    )
    return SharingPlan(tuple(levels), tuple(last))

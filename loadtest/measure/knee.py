"""The knee: the most load that a server takes without falling behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A stage keeps up if this share of its offered load comes back right.
KEPT_UP = 0.95


@dataclass(frozen=True)
class LoadStage:
    """Inputs a second: the offered ones and those with a right answer."""

    offered: float
    goodput: float


@dataclass(frozen=True)
class Knee:
    """`offered` is the highest load without falling behind, 0 if there is none. `peak` is the highest goodput."""

    offered: float
    peak: float


def knee(stages: Sequence[LoadStage]) -> Knee:
    """Return the knee of stages in any order. Raise ValueError if there are none.

    Stages count up to the first that falls behind. A later one that keeps up is chance.
    """
    if not stages:
        raise ValueError("no stages; a knee needs at least one")
    last = 0.0
    for stage in sorted(stages, key=lambda one: one.offered):
        if stage.goodput < KEPT_UP * stage.offered:
            break
        last = stage.offered
    return Knee(last, max(stage.goodput for stage in stages))

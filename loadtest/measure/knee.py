"""Where a server is saturated: the most load that it still takes without falling behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A stage keeps up if this share of what was offered came back right.
KEPT_UP = 0.95


@dataclass(frozen=True)
class LoadStage:
    """Inputs a second that were offered, and that were answered right."""

    offered: float
    goodput: float


@dataclass(frozen=True)
class Knee:
    """`offered`: the highest load that was kept up with, 0 where none was; `peak`: the highest goodput of any."""

    offered: float
    peak: float


def knee(stages: Sequence[LoadStage]) -> Knee:
    """The knee of stages in any order; ValueError of none.

    Stages count up to the first that falls behind: one that keeps up beyond it is chance.
    """
    if not stages:
        raise ValueError("no stages; a knee needs at least one")
    last = 0.0
    for stage in sorted(stages, key=lambda one: one.offered):
        if stage.goodput < KEPT_UP * stage.offered:
            break
        last = stage.offered
    return Knee(last, max(stage.goodput for stage in stages))

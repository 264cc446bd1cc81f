"""Anything that waits to be computed, as fairness and admission see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

Priority = Literal["high", "normal", "low"]
# The cost of a token to its line of the queue. Under load a high one gets four times the share of a normal one.
PRIORITIES: Mapping[Priority, int] = {"high": 1, "normal": 4, "low": 16}


class Work(Protocol):
    """A unit that waits for its turn: a row of one pass, or a step of a sequence.

    `cost` is in tokens, or in the modality's own unit of the same size.
    """

    @property
    def cost(self) -> int: ...

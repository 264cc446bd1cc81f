"""Define the unit of work that fair queueing and admission count, and its priorities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

Priority = Literal["high", "normal", "low"]
# The price of a token to the adapter's queue that it waits in. Under load, high priority gets four times the
# share of normal priority, and normal four times that of low.
PRIORITIES: Mapping[Priority, int] = {"high": 1, "normal": 4, "low": 16}


class Work(Protocol):
    """A unit of work that waits for its turn, such as a row of one forward pass or a step of a sequence.

    `cost` is in tokens, or in a unit of another modality that takes as long to compute.
    """

    @property
    def cost(self) -> int: ...

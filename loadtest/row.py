"""A row of the targets table: what was compared, every pair, and whether the target is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loadtest.interval import Interval, median_interval


class Pair(NamedTuple):
    """Two measurements taken next to each other."""

    top: float
    bottom: float

    @property
    def ratio(self) -> float:
        return self.top / self.bottom


@dataclass(frozen=True)
class Row:
    """The ratio `top` ÷ `bottom` over pairs; the two texts say exactly what each side computed.

    `target` None: printed, not judged. `extra` holds figures that belong to the row and are not judged.
    """

    number: int
    title: str
    top: str
    bottom: str
    unit: str
    pairs: Sequence[Pair]
    target: float | None = None
    notes: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> Interval:
        """The median of the pairs' ratios with its interval."""
        return median_interval([pair.ratio for pair in self.pairs])

    @property
    def met(self) -> bool | None:
        """Whether the interval reaches the target; None without one."""
        return None if self.target is None else self.interval.high >= self.target

    def to_json(self) -> dict[str, Any]:
        """The row with every pair's figures, JSON-ready."""
        interval = self.interval
        return {
            "row": self.number,
            "title": self.title,
            "top": self.top,
            "bottom": self.bottom,
            "unit": self.unit,
            "median": interval.median,
            "interval": [interval.low, interval.high],
            "coverage": interval.coverage,
            "target": self.target,
            "met": self.met,
            "notes": list(self.notes),
            "extra": dict(self.extra),
            "pairs": [{"top": p.top, "bottom": p.bottom, "ratio": p.ratio} for p in self.pairs],
        }

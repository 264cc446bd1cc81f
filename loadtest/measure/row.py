"""A row of the targets table: what was compared, every pair, and whether the target is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from rootstock.loadtest.measure.interval import MedianInterval, median_interval


class Pair(NamedTuple):
    """Two measurements taken next to each other; where there is but one, it is `top`."""

    top: float
    bottom: float = 0.0

    @property
    def ratio(self) -> float:
        return self.top / self.bottom


class Measure(Enum):
    """The one figure that a row makes of a pair."""

    RATIO = "top ÷ bottom"
    DIFFERENCE = "top − bottom"
    TOP = "top"

    def of(self, pair: Pair) -> float:
        """The pair's figure: a ratio has no unit, the others have the row's."""
        if self is Measure.RATIO:
            return pair.ratio
        return pair.top - pair.bottom if self is Measure.DIFFERENCE else pair.top


@dataclass(frozen=True)
class BenchmarkRow:
    """A measure over pairs, by default the ratio; the texts `top` and `bottom` say what each side computed.

    `label` is the row's number in the targets table, or a word. `target` None: printed, not judged; `at_most`:
    the target is a ceiling, otherwise a floor. `exact`: a count, which more pairs make no surer. `extra` holds
    figures that belong to the row and are not judged.
    """

    label: str
    title: str
    top: str
    bottom: str
    unit: str
    pairs: Sequence[Pair]
    target: float | None = None
    measure: Measure = Measure.RATIO
    at_most: bool = False
    notes: Sequence[str] = ()
    exact: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> list[float]:
        """Each pair's figure."""
        return [self.measure.of(pair) for pair in self.pairs]

    @property
    def interval(self) -> MedianInterval:
        """The median of the pairs' figures with its interval."""
        return median_interval(self.figures)

    @property
    def figure_unit(self) -> str:
        """The unit of the pairs' figures; empty for a ratio."""
        return "" if self.measure is Measure.RATIO else self.unit

    @property
    def met(self) -> bool | None:
        """Whether the interval reaches the target; None without one."""
        if self.target is None:
            return None
        return self.interval.low <= self.target if self.at_most else self.interval.high >= self.target

    def to_json(self) -> dict[str, Any]:
        """The row with every pair's figures, JSON-ready."""
        interval = self.interval
        return {
            "row": self.label,
            "title": self.title,
            "top": self.top,
            "bottom": self.bottom,
            "unit": self.unit,
            "measure": self.measure.value,
            "median": interval.median,
            "interval": [interval.low, interval.high],
            "coverage": interval.coverage,
            "target": self.target,
            "at_most": self.at_most,
            "met": self.met,
            "notes": list(self.notes),
            "extra": dict(self.extra),
            "pairs": [{**pair._asdict(), "figure": self.measure.of(pair)} for pair in self.pairs],
        }


@dataclass(frozen=True)
class NotRun:
    """A row that could not be measured here, and why."""

    label: str
    title: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The row without figures, JSON-ready."""
        return {"row": self.label, "title": self.title, "not_run": self.reason}

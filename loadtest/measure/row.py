"""A row of a benchmark: the two sides that it compares, every pair, and its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from rootstock.loadtest.measure.interval import MedianInterval, median_interval


class Pair(NamedTuple):
    """Two measurements taken next to each other. A single measurement is `top`."""

    top: float
    bottom: float = 0.0

    @property
    def ratio(self) -> float:
        """Return top ÷ bottom."""
        return self.top / self.bottom


class Measure(Enum):
    """The figure that a row computes from a pair."""

    RATIO = "top ÷ bottom"
    DIFFERENCE = "top − bottom"
    TOP = "top"

    def of(self, pair: Pair) -> float:
        """Return the pair's figure. A ratio has no unit; the other figures have the row's."""
        if self is Measure.RATIO:
            return pair.ratio
        return pair.top - pair.bottom if self is Measure.DIFFERENCE else pair.top


@dataclass(frozen=True)
class BenchmarkRow:
    """One figure over pairs, by default their ratio. `top` and `bottom` describe the work of each side.

    `benchmark` is a name of the catalogue. A row without a `target` is printed and not judged. The target is a
    ceiling if `at_most`, otherwise a floor. `exact` marks a count, which needs no interval. `extra` holds further
    figures of the row, which are not judged.
    """

    benchmark: str
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
        """Return each pair's figure."""
        return [self.measure.of(pair) for pair in self.pairs]

    @property
    def interval(self) -> MedianInterval:
        """Return the median of the pairs' figures with its interval."""
        return median_interval(self.figures)

    @property
    def middle(self) -> Pair:
        """Return the pair whose figure is the middle one."""
        return sorted(self.pairs, key=self.measure.of)[len(self.pairs) // 2]

    @property
    def figure_unit(self) -> str:
        """Return the unit of the pairs' figures; empty for a ratio."""
        return "" if self.measure is Measure.RATIO else self.unit

    @property
    def met(self) -> bool | None:
        """Return whether the interval reaches the target; None without a target."""
        if self.target is None:
            return None
        return self.interval.low <= self.target if self.at_most else self.interval.high >= self.target

    def to_json(self) -> dict[str, Any]:
        """Return the row with every pair's figures, JSON-ready."""
        interval = self.interval
        return {
            "benchmark": self.benchmark,
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
            "exact": self.exact,
            "met": self.met,
            "notes": list(self.notes),
            "extra": dict(self.extra),
            "pairs": [{**pair._asdict(), "figure": self.measure.of(pair)} for pair in self.pairs],
        }


@dataclass(frozen=True)
class NotRun:
    """A row that could not be measured here, and the reason."""

    benchmark: str
    title: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the row without figures, JSON-ready."""
        return {"benchmark": self.benchmark, "title": self.title, "not_run": self.reason}


def row_from_json(content: Mapping[str, Any]) -> BenchmarkRow | NotRun:
    """Return the row that `to_json` wrote. Its median and interval are computed again from the pairs."""
    if "not_run" in content:
        return NotRun(content["benchmark"], content["title"], content["not_run"])
    names = ("benchmark", "title", "top", "bottom", "unit", "target", "at_most", "exact", "notes", "extra")
    return BenchmarkRow(
        **{name: content[name] for name in names},
        measure=Measure(content["measure"]),
        pairs=[Pair(pair["top"], pair["bottom"]) for pair in content["pairs"]],
    )

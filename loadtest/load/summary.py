"""Figures of many records: rates, latency percentiles, counts by verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.loadtest.judgement.verdict import FAULTS, Verdict
from rootstock.loadtest.load.record import Record

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Summary:
    """The requests of a stretch of `seconds`: counts, rates in requests and inputs a second, milliseconds.

    Percentiles are of the right answers to requests that were due in the stretch; NaN if there are none.
    `goodput_s` and `inputs_s` count right answers that came within the stretch.
    """

    seconds: float
    counts: Counter[str]
    offered_s: float
    goodput_s: float
    inputs_s: float
    latency_ms: dict[int, float]
    queue_ms: float
    inference_ms: float
    scored: int

    @property
    def faults(self) -> int:
        """Return the number of answers that failed, were stale, mixed or wrong."""
        return sum(self.counts[one] for one in FAULTS)

    def to_json(self) -> dict[str, Any]:
        """Return the figures, JSON-ready; NaN as null."""
        return {
            "seconds": self.seconds,
            **{verdict.value: self.counts[verdict] for verdict in Verdict},
            "scored": self.scored,
            "offered_s": self.offered_s,
            "goodput_s": self.goodput_s,
            "inputs_s": self.inputs_s,
            **{f"p{p}_ms": _finite(ms) for p, ms in self.latency_ms.items()},
            "queue_p50_ms": _finite(self.queue_ms),
            "inference_p50_ms": _finite(self.inference_ms),
        }


def summarize(records: Sequence[Record], start: float, seconds: float) -> Summary:
    """Return the figures of a stretch of `seconds` from `start`. Records of other times are left out."""

    def within(at: float) -> bool:
        return start <= at < start + seconds

    on_time = [r for r in records if r.verdict == Verdict.OK and within(r.at + r.latency)]
    records = [r for r in records if within(r.at)]
    good = [r for r in records if r.verdict == Verdict.OK]
    latencies = [1e3 * r.latency for r in good]
    with_timings = [r for r in good if r.inference_ms]
    return Summary(
        seconds,
        Counter(r.verdict for r in records),
        len(records) / seconds,
        len(on_time) / seconds,
        sum(r.inputs for r in on_time) / seconds,
        {p: percentile(latencies, p) for p in PERCENTILES},
        percentile([r.queue_ms for r in with_timings], 50),
        percentile([r.inference_ms for r in with_timings], 50),
        sum(r.scored for r in good),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed; NaN without values."""
    if not len(values):
        return float("nan")
    return float(np.percentile(np.asarray(values), percent, method="inverted_cdf"))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

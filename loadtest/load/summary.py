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
class StreamFigures:
    """Figures of answers that came as streams.

    `first_ms` are percentiles of the time to the first token. `token_ms` are percentiles of the time per further
    token, which is a mean over each answer. `tokens_s` counts the tokens that came within the stretch.
    """

    first_ms: dict[int, float]
    token_ms: dict[int, float]
    tokens_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures, JSON-ready; NaN as null."""
        return {
            **{f"first_p{p}_ms": _finite(ms) for p, ms in self.first_ms.items()},
            **{f"token_p{p}_ms": _finite(ms) for p, ms in self.token_ms.items()},
            "tokens_s": self.tokens_s,
        }


@dataclass(frozen=True)
class Summary:
    """The requests of a stretch of `seconds`: counts, rates in requests and inputs a second, milliseconds.

    Percentiles are of the right answers to requests that were due in the stretch; NaN if there are none.
    `goodput_s` and `inputs_s` count right answers that came within the stretch. `streams` is None if no right
    answer came as a stream.
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
    streams: StreamFigures | None = None

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
            **({} if self.streams is None else self.streams.to_json()),
        }


def summarize(records: Sequence[Record], start: float, seconds: float) -> Summary:
    """Return the figures of a stretch of `seconds` from `start`. Records of other times are left out."""

    def within(at: float) -> bool:
        return start <= at < start + seconds

    streams = _streams([r for r in records if r.tokens and r.verdict == Verdict.OK], start, seconds)
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
        streams,
    )


def _streams(records: Sequence[Record], start: float, seconds: float) -> StreamFigures | None:
    if not records:
        return None
    due = [r for r in records if start <= r.at < start + seconds]
    further = [1e3 * (r.latency - r.first) / (r.tokens - 1) for r in due if r.tokens > 1]
    return StreamFigures(
        {p: percentile([1e3 * r.first for r in due], p) for p in PERCENTILES},
        {p: percentile(further, p) for p in PERCENTILES},
        sum(_tokens_within(r, start, start + seconds) for r in records) / seconds,
    )


def _tokens_within(record: Record, start: float, end: float) -> float:
    """Return how many of an answer's tokens came in a stretch, if they came evenly after the first."""
    first, last = record.at + record.first, record.at + record.latency
    share = (min(last, end) - max(first, start)) / (last - first) if last > first else 0.0
    return float(start <= first < end) + max(0.0, share) * (record.tokens - 1)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed; NaN without values."""
    if not len(values):
        return float("nan")
    return float(np.percentile(np.asarray(values), percent, method="inverted_cdf"))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

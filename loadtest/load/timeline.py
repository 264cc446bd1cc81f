"""A run second by second: requests, answers, and the server's figures."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rootstock.loadtest.load.record import CALLER, Record
from rootstock.loadtest.load.samples import ResourceSample, between
from rootstock.loadtest.load.summary import summarize

# The most points of a plot.
_POINTS = 240


def timeline(
    records: Sequence[Record], samples: Sequence[ResourceSample], phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a second, or a longer stretch for a long run, of the callers' requests alone.

    A request counts in the second in which it was due.
    """
    callers = [r for r in records if r.who == CALLER]
    if not callers:
        return []
    start = min(r.at for r in callers)
    seconds = max(r.at for r in callers) - start
    step = max(1, round(seconds / _POINTS + 0.5))
    bins: defaultdict[int, list[Record]] = defaultdict(list)
    for record in callers:
        due, end = (int((at - start) // step) for at in (record.at, record.at + record.latency))
        for number in range(due, end + 1):
            bins[number].append(record)
    return [
        {
            "second": number * step,
            "phase": phases[bins[number][-1].phase],
            **summarize(bins[number], start + number * step, step).to_json(),
            **_server(samples, start + number * step, start + (number + 1) * step),
        }
        for number in sorted(bins)
    ]


def _server(samples: Sequence[ResourceSample], start: float, end: float) -> dict[str, float | None]:
    """Return the figures from the last sample before to the last sample within."""
    before = [one for one in samples if one.at <= start] or list(samples[:1])
    within = [one for one in samples if start < one.at <= end]
    if not before or not within:
        return {}
    return between(before[-1], within[-1])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as CSV with a header. A row's missing figures are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)

"""A request as the generator saw it, and many of them in a file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

# Senders: the callers that are judged, the flood, and the publisher.
CALLER, FLOOD, MOVER = "caller", "flood", "mover"
# The files that the generator leaves.
RECORDS, PHASES = "records.csv", "phases.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A request, its times and its verdict.

    `phase` is its phase's number in the plan. `at` is the time when it was due, in seconds of a monotonic clock.
    `latency` counts from that time, `service` from the time when it was sent; both are in seconds. `queue_ms` and
    `inference_ms` are the answer's timings, 0 if it has none. `first` is the time from `at` to the first token of
    an answer that comes as a stream, and `tokens` the number of its tokens; else 0.
    """

    phase: int
    who: str
    kind: str
    at: float
    latency: float
    service: float
    inputs: int
    verdict: str
    scored: bool = False
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    first: float = 0.0
    tokens: int = 0
    detail: str = ""


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as CSV with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Record))
        writer.writerows(astuple(record) for record in records)


def read_records(path: Path) -> list[Record]:
    """Return the records that `write_records` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Record(
                int(row["phase"]),
                row["who"],
                row["kind"],
                float(row["at"]),
                float(row["latency"]),
                float(row["service"]),
                int(row["inputs"]),
                row["verdict"],
                row["scored"] == "True",
                float(row["queue_ms"]),
                float(row["inference_ms"]),
                float(row["first"]),
                int(row["tokens"]),
                row["detail"],
            )
            for row in csv.DictReader(file)
        ]

"""One request as the generator saw it, and many of them as a file."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

# Whose requests: those that are judged, and those of the flood.
CALLER, FLOOD, MOVER = "caller", "flood", "mover"
# The files that the generator leaves.
RECORDS, PHASES = "records.csv", "phases.json"


@dataclass(frozen=True, slots=True)
class Record:
    """`phase`: its place in the plan. `at`: when it was to be sent, in seconds of the machine's monotonic clock.

    `latency` counts from then, `service` from when it really was sent; both in seconds. `queue_ms` and
    `inference_ms` are the answer's own timings, 0 where it has none.
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
    detail: str = ""


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write them as CSV with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Record))
        writer.writerows(astuple(record) for record in records)


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote."""
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
                row["detail"],
            )
            for row in csv.DictReader(file)
        ]

"""A benchmark's outcome: a table for the reader, a JSON file for the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.row import Row

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Report:
    """The rows of one run with the machine that ran them and the run's parameters."""

    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    rows: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        """The whole report, JSON-ready."""
        return {
            "machine": dict(self.machine),
            "parameters": dict(self.parameters),
            "rows": [row.to_json() for row in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write the JSON file, its folder made if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        """Print the table, what each side computed, and the notes, on stdout."""
        from rich.console import Console
        from rich.table import Table

        table = Table("row", "what", "median", "95 % interval", "target", "met", "pairs")
        for row in self.rows:
            interval = row.interval
            table.add_row(
                str(row.number),
                row.title,
                f"{interval.median:.3f}",
                f"{interval.low:.3f} to {interval.high:.3f}",
                "" if row.target is None else f"≥ {row.target:g}",
                verdict(row),
                str(len(row.pairs)),
            )
        console = Console(highlight=False, markup=False)
        console.print(table)
        for row in self.rows:
            console.print(f"row {row.number}: {row.title}")
            middle = sorted(row.pairs, key=lambda pair: pair.ratio)[len(row.pairs) // 2]
            lines = (f"top     {row.top}", f"bottom  {row.bottom}", *row.notes)
            console.print(f"  middle pair: {middle.top:.4g} against {middle.bottom:.4g} {row.unit}")
            for line in lines:
                console.print(f"  {line}", soft_wrap=True)
        console.print(f"{self.machine['cpu']}, {self.machine['cores']} cores, commit {self.machine['commit']}")


def verdict(row: Row) -> str:
    """The table's word: yes, no, or nothing without a target; with "?" where the pairs are too few for 95 %."""
    if row.met is None:
        return ""
    doubt = "" if row.interval.coverage >= 0.95 else "?"
    return ("yes" if row.met else "no") + doubt

"""A benchmark's outcome: a table for the reader, a JSON file for the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Report:
    """The rows of one run with the machine that ran them and the run's parameters."""

    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    rows: Sequence[BenchmarkRow | NotRun]

    @property
    def measured(self) -> list[BenchmarkRow]:
        """The rows that have figures."""
        return [row for row in self.rows if isinstance(row, BenchmarkRow)]

    def to_json(self) -> dict[str, Any]:
        """The whole report, JSON-ready."""
        return {
            "machine": dict(self.machine),
            "parameters": dict(self.parameters),
            "rows": [row.to_json() for row in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write the JSON file, its folder made if need be."""
        write_json(path, self.to_json())

    def show(self) -> None:
        """Print the table, what each side computed, and the notes, on stdout."""
        from rich.console import Console
        from rich.table import Table

        table = Table("row", "what", "median", "95 % interval", "target", "met", "pairs")
        for row in self.rows:
            table.add_row(*cells_of(row))
        console = Console(highlight=False, markup=False)
        console.print(table)
        for row in self.rows:
            console.print(f"row {row.label}: {row.title}", soft_wrap=True)
            for line in lines_of(row):
                console.print(f"  {line}", soft_wrap=True)
        console.print(f"{self.machine['cpu']}, {self.machine['cores']} cores, commit {self.machine['commit']}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cells_of(row: BenchmarkRow | NotRun) -> list[str]:
    """A row of the table: label, title, median, interval, target, verdict, pairs."""
    if isinstance(row, NotRun):
        return [row.label, row.title, "not run", "", "", "", "0"]
    interval, unit = row.interval, row.figure_unit
    digits = ".3f" if row.measure is Measure.RATIO else ".4g"
    bound = "≤" if row.at_most else "≥"
    return [
        row.label,
        row.title,
        f"{interval.median:{digits}} {unit}".rstrip(),
        f"{interval.low:{digits}} to {interval.high:{digits}}",
        "" if row.target is None else f"{bound} {row.target:g} {unit}".rstrip(),
        verdict(row),
        str(len(row.pairs)),
    ]


def lines_of(row: BenchmarkRow | NotRun) -> list[str]:
    """What each side computed, and the notes."""
    if isinstance(row, NotRun):
        return [f"not run: {row.reason}"]
    middle = sorted(row.pairs, key=row.measure.of)[len(row.pairs) // 2]
    if row.measure is Measure.TOP:
        return [f"middle: {middle.top:.4g} {row.unit}", f"top     {row.top}", *row.notes]
    figures = f"middle pair: {middle.top:.4g} against {middle.bottom:.4g} {row.unit}"
    return [figures, f"top     {row.top}", f"bottom  {row.bottom}", *row.notes]


def verdict(row: BenchmarkRow) -> str:
    """The table's word: yes, no, or nothing without a target; with "?" where the pairs are too few for 95 %."""
    if row.met is None:
        return ""
    doubt = "" if row.exact or row.interval.coverage >= 0.95 else "?"
    return ("yes" if row.met else "no") + doubt

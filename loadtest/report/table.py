"""A run as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootstock.loadtest.measure.outcome import BenchmarkRun
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("benchmark", "figure", "median", "95 % interval", "target", "met", "pairs")


def show(run: BenchmarkRun) -> None:
    """Print the table, the work of each side, and the notes."""
    from rich.console import Console
    from rich.table import Column, Table

    # A name is never cut, however narrow the terminal.
    width = max((len(row.benchmark) for row in run.outcome.rows), default=0)
    table = Table(Column(COLUMNS[0], min_width=width), *COLUMNS[1:])
    for row in run.outcome.rows:
        table.add_row(*cells_of(row))
    console = Console(highlight=False, markup=False)
    console.print(table)
    if "simulated" in run.parameters:
        console.print(_phases(run))
    for row in run.outcome.rows:
        console.print(f"{row.benchmark}: {row.title}", soft_wrap=True)
        for line in lines_of(row):
            console.print(f"  {line}", soft_wrap=True)
    console.print(f"{run.machine['cpu']}, {run.machine['cores']} cores, commit {run.machine['commit']}")


def _phases(run: BenchmarkRun) -> Table:
    """Return the phases of a simulation as a table."""
    from rich.table import Table

    table = Table(*run.outcome.stages[0])
    for stage in run.outcome.stages:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in stage.values()))
    return table


def cells_of(row: BenchmarkRow | NotRun) -> list[str]:
    """Return a row's cells, one for each of `COLUMNS`."""
    if isinstance(row, NotRun):
        return [row.benchmark, row.title, "not run", "", "", "", "0"]
    interval, unit = row.interval, row.figure_unit
    digits = ".3f" if row.measure is Measure.RATIO else ".4g"
    bound = "≤" if row.at_most else "≥"
    return [
        row.benchmark,
        row.title,
        f"{interval.median:{digits}} {unit}".rstrip(),
        f"{interval.low:{digits}} to {interval.high:{digits}}",
        "" if row.target is None else f"{bound} {row.target:g} {unit}".rstrip(),
        verdict(row),
        str(len(row.pairs)),
    ]


def lines_of(row: BenchmarkRow | NotRun) -> list[str]:
    """Return the middle pair, the work of each side, and the notes."""
    if isinstance(row, NotRun):
        return [f"not run: {row.reason}"]
    middle = row.middle
    if row.measure is Measure.TOP:
        return [f"middle: {middle.top:.4g} {row.unit}", f"top     {row.top}", *row.notes]
    figures = f"middle pair: {middle.top:.4g} against {middle.bottom:.4g} {row.unit}"
    return [figures, f"top     {row.top}", f"bottom  {row.bottom}", *row.notes]


def verdict(row: BenchmarkRow) -> str:
    """Return yes, no, or nothing without a target; with "?" if the pairs are too few for 95 %."""
    if row.met is None:
        return ""
    doubt = "" if row.exact or row.interval.coverage >= 0.95 else "?"
    return ("yes" if row.met else "no") + doubt

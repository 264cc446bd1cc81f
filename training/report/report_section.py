"""A section of a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSection:
    """`rows` under `head`, with numbers after the first column unless `numbers` is false; `plot` names a plot."""

    title: str
    text: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plot: str = ""
    numbers: bool = True

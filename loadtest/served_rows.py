"""The rows of `rootstock bench http`, by label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest import engine_rows
from loadtest.cost_rows import cost_rows
from loadtest.http_rows import http_rows
from loadtest.row import NotRun, Row
from loadtest.scenarios.churn import churn
from loadtest.scenarios.prepared import Setup
from loadtest.served_peers import infinity_rows, set_adapter_row
from loadtest.windows import Windows


@dataclass(frozen=True)
class Served:
    """What every row is measured on and with."""

    setup: Setup
    windows: Windows


def _registry(s: Served) -> Sequence[Row | NotRun]:
    pairs = s.windows.pairs
    scale = engine_rows.quick_scale(pairs) if s.setup.quick else engine_rows.full_scale(pairs)
    given = engine_rows.Setup(s.setup.foundation, s.setup.export, s.setup.threads, scale, s.setup.say)
    return engine_rows.ROWS["9"](given)


ROWS: dict[str, Callable[[Served], Sequence[Row | NotRun]]] = {
    "3": lambda s: [set_adapter_row(s.setup.foundation, s.setup.export, s.windows, s.setup.threads, s.setup.say)],
    "4": lambda s: http_rows(s.setup.export, s.windows, s.setup.threads, s.setup.say),
    "5": lambda s: infinity_rows(s.setup.foundation, s.setup.export, s.windows, s.setup.threads, s.setup.say),
    "9": _registry,
    "11": lambda s: churn(s.setup).rows,
    "cost": lambda s: cost_rows(s.windows, s.setup.say),
}


def served_rows(labels: Sequence[str], served: Served) -> list[Row | NotRun]:
    """Measure the rows of these labels, in the table's order."""
    return [row for label in ROWS if label in labels for row in ROWS[label](served)]

"""The rows of `rootstock bench http`, by label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rootstock.loadtest.engine import rows as engine_rows
from rootstock.loadtest.fixtures.windows import Windows
from rootstock.loadtest.http.peer_servers import infinity_rows, set_adapter_row
from rootstock.loadtest.http.request_cost import cost_rows
from rootstock.loadtest.http.throughput import http_rows
from rootstock.loadtest.load.preparation import ScenarioSetup
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.loadtest.scenarios.churn import churn


@dataclass(frozen=True)
class HttpSetup:
    """What every row is measured on and with."""

    setup: ScenarioSetup
    windows: Windows


def _registry(s: HttpSetup) -> Sequence[BenchmarkRow | NotRun]:
    pairs = s.windows.pairs
    scale = engine_rows.quick_scale(pairs) if s.setup.quick else engine_rows.full_scale(pairs)
    given = engine_rows.EngineSetup(s.setup.foundation, s.setup.export, s.setup.threads, scale, s.setup.say)
    return engine_rows.ROWS["9"](given)


ROWS: dict[str, Callable[[HttpSetup], Sequence[BenchmarkRow | NotRun]]] = {
    "3": lambda s: [set_adapter_row(s.setup.foundation, s.setup.export, s.windows, s.setup.threads, s.setup.say)],
    "4": lambda s: http_rows(s.setup.export, s.windows, s.setup.threads, s.setup.say),
    "5": lambda s: infinity_rows(s.setup.foundation, s.setup.export, s.windows, s.setup.threads, s.setup.say),
    "9": _registry,
    "11": lambda s: churn(s.setup).rows,
    "cost": lambda s: cost_rows(s.windows, s.setup.say),
}


def served_rows(labels: Sequence[str], served: HttpSetup) -> list[BenchmarkRow | NotRun]:
    """Measure the rows of these labels, in the table's order."""
    return [row for label in ROWS if label in labels for row in ROWS[label](served)]

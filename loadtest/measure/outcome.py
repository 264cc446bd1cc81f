"""The outcome of a run and its record: rows, figures by phase, a timeline, the machine. Kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.loadtest.measure.row import BenchmarkRow, NotRun, row_from_json


@dataclass(frozen=True)
class Outcome:
    """The rows of a run, and for a scenario its phases (`stages`) and a line for each second (`timeline`).

    `knee` is the highest load that the server kept up with, in inputs a second, if the scenario searches for it.
    """

    rows: Sequence[BenchmarkRow | NotRun]
    stages: Sequence[Mapping[str, Any]] = ()
    timeline: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    knee: float | None = None

    @property
    def measured_rows(self) -> list[BenchmarkRow]:
        """Return the rows that have figures."""
        return [row for row in self.rows if isinstance(row, BenchmarkRow)]


@dataclass(frozen=True)
class BenchmarkRun:
    """An outcome with the machine that gave it and the run's parameters."""

    machine: Mapping[str, Any]
    parameters: Mapping[str, Any]
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Return the whole run, JSON-ready."""
        return {
            "machine": dict(self.machine),
            "parameters": dict(self.parameters),
            "notes": list(self.outcome.notes),
            "knee_inputs_s": self.outcome.knee,
            "rows": [row.to_json() for row in self.outcome.rows],
            "stages": [dict(stage) for stage in self.outcome.stages],
            "timeline": [dict(second) for second in self.outcome.timeline],
        }

    def write(self, path: Path) -> None:
        """Write the run as JSON. Create the folder if it does not exist."""
        write_json(path, self.to_json())

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> BenchmarkRun:
        """Return the run that `to_json` gave."""
        outcome = Outcome(
            [row_from_json(row) for row in content["rows"]],
            content["stages"],
            content["timeline"],
            content["notes"],
            content["knee_inputs_s"],
        )
        return BenchmarkRun(content["machine"], content["parameters"], outcome)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, each item of its lists on one line. Create the folder if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = ",\n".join(f"{json.dumps(name)}: {_value(value)}" for name, value in content.items())
    path.write_text(f"{{\n{members}\n}}\n", encoding="utf-8")


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)

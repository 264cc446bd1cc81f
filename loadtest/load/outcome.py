"""What a scenario came to: judged rows, figures by stage, the run from second to second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rootstock.loadtest.load.trial import Trial
from rootstock.loadtest.load.verdict import FAULTS, Verdict
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair


@dataclass(frozen=True)
class Outcome:
    """`stages`: figures by phase, or by what the scenario varies. `offered`: whether throughput against offered
    load says something; `knee`: the load up to which the server kept up, in inputs a second.
    """

    rows: Sequence[BenchmarkRow | NotRun]
    stages: Sequence[Mapping[str, Any]]
    timeline: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    offered: bool = False
    knee: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "stages": [dict(stage) for stage in self.stages],
            "timeline": [dict(one) for one in self.timeline],
            "notes": list(self.notes),
            "knee_inputs_s": self.knee,
            "extra": dict(self.extra),
        }


def faults_row(label: str, trials: Sequence[Trial]) -> BenchmarkRow:
    """How many answers were not what they had to be; the target is none."""
    counts = {fault: sum(t.all.counts[fault] + t.moves.counts[fault] for t in trials) for fault in FAULTS}
    asked = sum(t.all.counts.total() for t in trials)
    scored = sum(t.all.scored for t in trials)
    right = sum(t.all.counts[Verdict.OK] for t in trials)
    moves = sum(t.moves.counts.total() for t in trials)
    refused = sum(t.all.counts[Verdict.REFUSED] for t in trials)
    notes = [
        ", ".join(f"{count} {fault}" for fault, count in counts.items())
        + f"; {refused} refused, told when to retry",
        f"{asked} requests; of {right} right answers {scored} by their scores too, the others by digest alone",
        *(line for t in trials for line in t.details),
    ]
    if moves:
        notes.insert(1, f"{moves} versions published or activated meanwhile")
    return BenchmarkRow(
        label=label,
        title="answers failed, stale, mixed or wrong",
        top="every answer held against PEFT's scores, its version against what was live from request to answer",
        bottom="",
        unit="answers",
        pairs=[Pair(float(sum(counts.values())))],
        target=0.0,
        measure=Measure.TOP,
        at_most=True,
        notes=notes,
        exact=True,
        extra={fault.value: count for fault, count in counts.items()},
    )

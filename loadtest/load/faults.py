"""The row that counts failed, stale, mixed and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.loadtest import targets
from rootstock.loadtest.judgement.verdict import FAULTS, Verdict
from rootstock.loadtest.load.trial import Trial
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair


def faults_row(benchmark: str, trials: Sequence[Trial]) -> BenchmarkRow:
    """Return the count of faults in all trials of a scenario. The target is none."""
    counts = {fault: sum(t.all.counts[fault] + t.moves.counts[fault] for t in trials) for fault in FAULTS}
    requests = sum(t.all.counts.total() for t in trials)
    scored = sum(t.all.scored for t in trials)
    right = sum(t.all.counts[Verdict.OK] for t in trials)
    moves = sum(t.moves.counts.total() for t in trials)
    refused = sum(t.all.counts[Verdict.REFUSED] for t in trials)
    notes = [
        ", ".join(f"{count} {fault}" for fault, count in counts.items())
        + f"; {refused} refused with the time to retry",
        f"{requests} requests; {right} right answers, {scored} checked by scores or text too, the others by "
        "digest alone",
        *(line for t in trials for line in t.details),
    ]
    if moves:
        notes.insert(1, f"{moves} versions published or activated during the run")
    return BenchmarkRow(
        benchmark=benchmark,
        title="answers failed, stale, mixed or wrong",
        top="every answer compared with PEFT's, its version with those live between request and answer",
        bottom="",
        unit="answers",
        pairs=[Pair(float(sum(counts.values())))],
        target=targets.FAULTS,
        measure=Measure.TOP,
        at_most=True,
        notes=notes,
        exact=True,
        extra={fault.value: count for fault, count in counts.items()},
    )

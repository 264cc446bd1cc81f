"""`churn`, row 11: versions are published and activated under load, in windows that alternate with quiet ones."""

from __future__ import annotations

from rootstock.loadtest.load.outcome import Outcome, faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, ScenarioSetup, prepared
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

_USERS = 8
_ADAPTERS = 8
_MOVED = 4
_MOVES_S = 1.0
_RATIO, _SPARE_MS = 1.5, 10.0
_QUIET, _CHURN = "quiet", "churn"


def churn(setup: ScenarioSetup) -> Outcome:
    """60 s of load with a move each second, and as much without; two seconds a window."""
    total = setup.sized(full=60.0, quick=4.0)
    window = 2.0
    pairs = max(1, round(total / window))
    moves = round(_MOVES_S * window / 2) * pairs
    phases = [
        phase
        for i in range(pairs)
        for phase in (
            Phase(_QUIET, window, users=_USERS),
            Phase(_CHURN, window, users=_USERS, moves_s=_MOVES_S),
        )[:: 1 - 2 * (i % 2)]
    ]
    warm = Phase("warm", 1.0, users=_USERS)
    with prepared(setup, Needs(_ADAPTERS, moves=moves, moved=_MOVED)) as ready:
        trial = run(setup, ready, [warm, *phases], {PREDICT: 1}, popularity="uniform")
    return Outcome([p99_row(trial), faults_row("11", [trial])], trial.stages(), trial.timeline())


def p99_row(trial: Trial) -> BenchmarkRow:
    """Row 11: each churning window's p99 − 1.5 × that of the quiet one beside it."""
    windows = list(zip(trial.numbers(_CHURN), trial.numbers(_QUIET), strict=True))
    pairs = [(trial.of(c).latency_ms[99], trial.of(q).latency_ms[99]) for c, q in windows]
    middle = sorted(churned / quiet for churned, quiet in pairs)[len(pairs) // 2]
    return BenchmarkRow(
        label="11",
        title=f"p99 while versions are published or activated each second − {_RATIO:g} × p99 without",
        top=f"the 99th percentile of a window of {_USERS} clients, {_ADAPTERS} adapters, real texts, "
        f"{_MOVES_S:g} move a second: a version published and live, the one before activated, in turn",
        bottom=f"{_RATIO:g} times the same without moves",
        unit="ms",
        pairs=[Pair(churned, _RATIO * quiet) for churned, quiet in pairs],
        target=_SPARE_MS,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"p99 with ÷ without: {middle:.2f} in the middle pair",
            f"{trial.moves.counts['ok']} moves; one took {trial.moves.latency_ms[50]:.0f} ms (p50)",
        ],
    )

"""`churn`: versions are published and activated under load, in windows that alternate with quiet ones."""

from __future__ import annotations

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.interval import median_interval
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

_USERS = 8
_ADAPTERS = 8
_MOVING = 4
_MOVES_S = 1.0
_QUIET, _CHURN = "quiet", "churn"


def churn(setup: BenchmarkSetup) -> Outcome:
    """Load for 60 s with a move each second and for 60 s without, in windows of two seconds."""
    total = setup.length(full=60.0, quick=4.0)
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
    with scenario_fixture(setup, Needs(_ADAPTERS, moves=moves, moving=_MOVING)) as fixture:
        trial = run(setup, fixture, [warm, *phases], {PREDICT: 1}, popularity="uniform")
    return Outcome([p99_row(trial), faults_row("churn", [trial])], trial.stages(), trial.timeline())


def p99_row(trial: Trial) -> BenchmarkRow:
    """Return each churning window's p99 − 1.5 × that of the quiet one beside it."""
    windows = list(zip(trial.numbers(_CHURN), trial.numbers(_QUIET), strict=True))
    pairs = [(trial.of(c).latency_ms[99], trial.of(q).latency_ms[99]) for c, q in windows]
    median = median_interval([churning / quiet for churning, quiet in pairs]).median
    ratio = targets.CHURN_RATIO
    return BenchmarkRow(
        benchmark="churn",
        title=f"p99 while versions are published or activated each second − {ratio:g} × p99 without",
        top=f"the 99th percentile of a window of {_USERS} clients, {_ADAPTERS} adapters, real texts, "
        f"{_MOVES_S:g} move a second: a version published and live, the one before activated, in turn",
        bottom=f"{ratio:g} times the same without moves",
        unit="ms",
        pairs=[Pair(churning, ratio * quiet) for churning, quiet in pairs],
        target=targets.CHURN_MS,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"p99 with ÷ without: {median:.2f}, the median of the pairs",
            f"{trial.moves.counts['ok']} moves; one took {trial.moves.latency_ms[50]:.0f} ms (p50)",
        ],
    )

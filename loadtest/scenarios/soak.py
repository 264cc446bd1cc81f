"""`soak`: half an hour of mixed traffic and the slope of the server's memory."""

from __future__ import annotations

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair
from rootstock.loadtest.measure.slope import WARM_UP, slopes
from rootstock.loadtest.scenarios.steady import MIX

_USERS = 16
_OF_CAPACITY = 0.5
_TITLE = "resident memory's slope"


def soak(setup: BenchmarkSetup) -> Outcome:
    """Load for 30 min at half of the rate of 16 clients: all kinds of request, Zipf over 64 adapters."""
    seconds = setup.length(full=1800.0, quick=6.0)
    phases = [
        Phase("calibrate", setup.count(10, 1), users=_USERS, calibrates=True),
        Phase("soak", seconds, of_capacity=_OF_CAPACITY),
    ]
    with scenario_fixture(setup, Needs(setup.count(64, 8))) as fixture:
        trial = run(setup, fixture, phases, MIX)
    return Outcome([_slope_row(trial), faults_row("soak", [trial])], trial.stages(), trial.timeline())


def _slope_row(trial: Trial) -> BenchmarkRow | NotRun:
    samples = [one for one in trial.during(trial.numbers("soak")[0]) if one.resident_mb == one.resident_mb]
    hours = [(one.at - samples[0].at) / 3600 for one in samples] if samples else []
    try:
        climbs = slopes(hours, [one.resident_mb for one in samples])
    except ValueError as error:
        return NotRun("soak", _TITLE, str(error))
    return BenchmarkRow(
        benchmark="soak",
        title=_TITLE,
        top=f"MB an hour between blocks of samples half the soak apart, the first {WARM_UP:.0%} left out; met "
        "if the median's interval reaches zero or lies below it",
        bottom="",
        unit="MB/h",
        pairs=[Pair(climb) for climb in climbs],
        target=targets.SOAK_MB_HOUR,
        measure=Measure.TOP,
        at_most=True,
        notes=[
            f"from {samples[0].resident_mb:.1f} to {samples[-1].resident_mb:.1f} MB in {60 * hours[-1]:.1f} min"
        ],
    )

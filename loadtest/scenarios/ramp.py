"""`ramp`: arrivals at a rate that grows past the knee, then at the peak and at three times it in turn."""

from __future__ import annotations

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.knee import LoadStage, knee
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair

_ADAPTERS = 32
# The generator runs on the server's cores; with eight inputs a request its cost is small beside theirs.
_INPUTS = 8
_USERS = 32
# Smaller than the server's own default, so that a stage is long enough to fill it.
_QUEUE_ITEMS = 512
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
_QUICK_SHARES = (0.5, 1.0, 3.0)
_AT_PEAK, _BEYOND = "1×", "3×"
_GOODPUT_TITLE = "goodput at three times the load ÷ goodput at the peak"


def ramp(setup: BenchmarkSetup) -> Outcome:
    """Load at a quarter to three times the rate of 32 clients, in stages of 10 s; then 1× and 3× in turn."""
    seconds = setup.length(full=10.0, quick=2.0)
    pairs = setup.count(6, 1)
    shares = _QUICK_SHARES if setup.quick else _SHARES
    turns = [
        phase
        for i in range(pairs)
        for phase in (Phase(_AT_PEAK, seconds, of_capacity=1.0), Phase(_BEYOND, seconds, of_capacity=3.0))[
            :: 1 - 2 * (i % 2)
        ]
    ]
    phases = [
        Phase("warm", 1.0, users=_USERS),
        Phase("calibrate", seconds, users=_USERS, calibrates=True),
        *(Phase(f"stage {share:g}×", seconds, of_capacity=share) for share in shares),
        *turns,
    ]
    needs = Needs(
        setup.count(_ADAPTERS, 8), texts=256, texts_each=32, settings={"QUEUE_ITEMS": str(_QUEUE_ITEMS)}
    )
    with scenario_fixture(setup, needs) as fixture:
        trial = run(setup, fixture, phases, {PREDICT: 1}, popularity="uniform", inputs=_INPUTS)
    stages = [
        LoadStage(_INPUTS * trial.phases[i]["rate"], trial.of(i).inputs_s)
        for i, phase in enumerate(trial.phases)
        if phase["of_capacity"]
    ]
    saturation = knee(stages)
    rows = [_goodput_row(trial), _bounded_row(trial, saturation.peak), faults_row("ramp", [trial])]
    notes = [
        f"the server kept up with {saturation.offered:.0f} inputs/s offered, {_INPUTS} a request; "
        f"the highest goodput was {saturation.peak:.0f}",
        f"the server's queue takes {_QUEUE_ITEMS} inputs (ROOTSTOCK_QUEUE_ITEMS)",
    ]
    return Outcome(rows, trial.stages(), trial.timeline(), notes, knee=saturation.offered)


def _goodput_row(trial: Trial) -> BenchmarkRow | NotRun:
    turns = zip(trial.numbers(_BEYOND), trial.numbers(_AT_PEAK), strict=True)
    pairs = [Pair(trial.of(beyond).inputs_s, trial.of(peak).inputs_s) for beyond, peak in turns]
    if not all(pair.bottom for pair in pairs):
        return NotRun(
            "ramp", _GOODPUT_TITLE, "no right answer came within a window at the peak: the machine is too slow"
        )
    refused = sum(trial.of(i).counts["refused"] for i in trial.numbers(_BEYOND))
    return BenchmarkRow(
        benchmark="ramp",
        title=_GOODPUT_TITLE,
        top="right answers within the window, inputs a second, at a constant arrival rate of three times the "
        f"rate that {_USERS} clients reached",
        bottom=f"the same at the rate that {_USERS} clients reached",
        unit="inputs/s",
        pairs=pairs,
        target=targets.RAMP_GOODPUT,
        notes=[f"{refused} requests refused at three times the load, each 429 with Retry-After"],
    )


def _bounded_row(trial: Trial, peak: float) -> BenchmarkRow:
    """Return the p99 of accepted requests past the knee, against the time of a full queue at the peak."""
    return BenchmarkRow(
        benchmark="ramp",
        title="p99 of the accepted at three times the load",
        top="the 99th percentile from the scheduled arrival to the right answer",
        bottom="",
        unit="ms",
        pairs=[Pair(trial.of(i).latency_ms[99]) for i in trial.numbers(_BEYOND)],
        target=targets.RAMP_QUEUES * 1e3 * _QUEUE_ITEMS / peak if peak else 0.0,
        measure=Measure.TOP,
        at_most=True,
        notes=[
            f"target: {targets.RAMP_QUEUES:g} times the time of a full queue, {_QUEUE_ITEMS} inputs, at "
            f"{peak:.0f} inputs/s"
        ],
    )

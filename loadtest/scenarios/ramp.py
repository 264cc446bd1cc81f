"""`ramp`: arrivals at a rate that grows past the knee, then at the peak and at three times it in turn."""

from __future__ import annotations

from rootstock.loadtest.load.outcome import Outcome, faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, ScenarioSetup, prepared
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.knee import LoadStage, knee
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

_ADAPTERS = 32
# Eight inputs a request: the generator, on the server's cores, then costs little beside them, past the knee too.
_INPUTS = 8
_USERS = 32
# Smaller than the server's own default, so that a stage is long enough to fill it.
_QUEUE_ITEMS = 512
_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
_QUICK_SHARES = (0.5, 1.0, 3.0)
_AT_PEAK, _BEYOND = "1×", "3×"
_KEPT = 0.9
# Times that a full queue takes: its own wait, and as much for the batch and the answer's way.
_WAITS = 2.0


def ramp(setup: ScenarioSetup) -> Outcome:
    """What 32 clients get through; stages of 10 s at a quarter to three times that; 1× and 3× in turn."""
    seconds = setup.sized(full=10.0, quick=2.0)
    pairs = setup.many(6, 1)
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
    needs = Needs(setup.many(_ADAPTERS, 8), texts=256, texts_each=32, settings={"QUEUE_ITEMS": str(_QUEUE_ITEMS)})
    with prepared(setup, needs) as ready:
        trial = run(setup, ready, phases, {PREDICT: 1}, popularity="uniform", inputs=_INPUTS)
    stages = [
        LoadStage(_INPUTS * trial.phases[i]["rate"], trial.of(i).inputs_s)
        for i, phase in enumerate(trial.phases)
        if phase["of_capacity"]
    ]
    found = knee(stages)
    rows = [_goodput_row(trial), _bounded_row(trial, found.peak), faults_row("ramp", [trial])]
    notes = [
        f"kept up to {found.offered:.0f} inputs/s offered, {_INPUTS} a request; the most was {found.peak:.0f}",
        f"the server's queue takes {_QUEUE_ITEMS} inputs (ROOTSTOCK_QUEUE_ITEMS)",
    ]
    return Outcome(rows, trial.stages(), trial.timeline(), notes, offered=True, knee=found.offered)


def _goodput_row(trial: Trial) -> BenchmarkRow:
    turns = zip(trial.numbers(_BEYOND), trial.numbers(_AT_PEAK), strict=True)
    pairs = [Pair(trial.of(beyond).inputs_s, trial.of(peak).inputs_s) for beyond, peak in turns]
    refused = sum(trial.of(i).counts["refused"] for i in trial.numbers(_BEYOND))
    return BenchmarkRow(
        label="ramp",
        title="goodput at three times the load ÷ goodput at the peak",
        top="right answers within the window, inputs a second, at a constant arrival rate of three times what "
        f"{_USERS} clients got through",
        bottom="the same at once that rate",
        unit="inputs/s",
        pairs=pairs,
        target=_KEPT,
        notes=[f"{refused} requests refused at three times the load, each 429 with Retry-After"],
    )


def _bounded_row(trial: Trial, peak: float) -> BenchmarkRow:
    """p99 of what was accepted past the knee, against what a full queue takes at the peak."""
    return BenchmarkRow(
        label="ramp",
        title="p99 of the accepted at three times the load",
        top="the 99th percentile from the scheduled arrival to the right answer",
        bottom="",
        unit="ms",
        pairs=[Pair(trial.of(i).latency_ms[99]) for i in trial.numbers(_BEYOND)],
        target=_WAITS * 1e3 * _QUEUE_ITEMS / peak if peak else 0.0,
        measure=Measure.TOP,
        at_most=True,
        notes=[
            f"target: {_WAITS:g} times what a full queue, {_QUEUE_ITEMS} inputs, takes at {peak:.0f} inputs/s"
        ],
    )

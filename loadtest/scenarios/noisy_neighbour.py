"""`noisy-neighbour`: the latency of other adapters' clients while one adapter floods."""

from __future__ import annotations

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.record import FLOOD
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Pair

_OTHERS = 16
_USERS = 16
_OF_CAPACITY = 0.5
_FLOOD, _FLOOD_INPUTS = 32, 8
_QUIET, _FLOODED = "quiet", "flooded"


def noisy_neighbour(setup: BenchmarkSetup) -> Outcome:
    """Load 16 adapters at half of the rate of 16 clients, in windows of 5 s with a flood and without, in turn."""
    window = setup.length(full=5.0, quick=2.0)
    pairs = setup.count(12, 1)
    turns = [
        phase
        for i in range(pairs)
        for phase in (
            Phase(_QUIET, window, of_capacity=_OF_CAPACITY),
            Phase(_FLOODED, window, of_capacity=_OF_CAPACITY, flood=_FLOOD),
        )[:: 1 - 2 * (i % 2)]
    ]
    phases = [Phase("warm", 1.0, users=_USERS), Phase("calibrate", window, users=_USERS, calibrates=True), *turns]
    with scenario_fixture(setup, Needs(_OTHERS + 1)) as fixture:
        *others, flooding = fixture.names
        trial = run(
            setup,
            fixture,
            phases,
            {PREDICT: 1},
            names=others,
            popularity="uniform",
            flooding=flooding,
            flood_inputs=_FLOOD_INPUTS,
        )
    rows = [_others_row(trial), faults_row("noisy-neighbour", [trial])]
    return Outcome(rows, trial.stages(), trial.timeline())


def _others_row(trial: Trial) -> BenchmarkRow:
    turns = list(zip(trial.numbers(_FLOODED), trial.numbers(_QUIET), strict=True))
    refused = sum(trial.of(flooded).counts["refused"] for flooded, _ in turns)
    flood = [trial.of(flooded, FLOOD) for flooded, _ in turns]
    return BenchmarkRow(
        benchmark="noisy-neighbour",
        title="the others' p99 while one adapter floods ÷ without",
        top=f"the 99th percentile of single inputs under {_OTHERS} adapters, arriving at {_OF_CAPACITY:g} of "
        f"the rate that {_USERS} clients reached, while {_FLOOD} clients send {_FLOOD_INPUTS} inputs at a time "
        "to one more adapter",
        bottom="the same without the flood",
        unit="ms",
        pairs=[Pair(trial.of(f).latency_ms[99], trial.of(q).latency_ms[99]) for f, q in turns],
        target=targets.NEIGHBOUR_P99,
        at_most=True,
        notes=[
            f"{refused} of the others' requests were refused while it flooded",
            f"the flood got {sum(one.inputs_s for one in flood) / len(flood):.0f} inputs/s",
        ],
    )

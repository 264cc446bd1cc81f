"""`steady`: all kinds of request, in a closed loop and then at a constant rate, while versions are published."""

from __future__ import annotations

from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.traffic import EMBEDDINGS, FAN_OUT, PREDICT
from rootstock.loadtest.load.trial import run
from rootstock.loadtest.measure.outcome import Outcome

_USERS = 16
# This arrival rate leaves room for batches that take longer.
_OF_CAPACITY = 0.6
_MOVES_S = 0.5
MIX = {PREDICT: 0.8, FAN_OUT: 0.1, EMBEDDINGS: 0.1}


def steady(setup: BenchmarkSetup) -> Outcome:
    """Load for 60 s by 16 clients and for 60 s at 60 % of their rate, Zipf over 64 adapters."""
    seconds = setup.length(full=60.0, quick=2.0)
    phases = [
        Phase("warm", 1.0, users=_USERS),
        Phase("closed loop", seconds, users=_USERS, calibrates=True, moves_s=_MOVES_S),
        Phase("constant rate", seconds, of_capacity=_OF_CAPACITY, moves_s=_MOVES_S),
    ]
    needs = Needs(setup.count(64, 8), moves=1 + int(_MOVES_S * seconds))
    with scenario_fixture(setup, needs) as fixture:
        trial = run(setup, fixture, phases, MIX)
    return Outcome([faults_row("steady", [trial])], trial.stages(), trial.timeline())

"""`many`: Zipf traffic over a growing number of registered adapters."""

from __future__ import annotations

from typing import Any

from rootstock.loadtest import targets
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.samples import between
from rootstock.loadtest.load.traffic import EMBEDDINGS, PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

SIZES = (10, 100, 1_000, 10_000)
QUICK_SIZES = (4, 24)
# The most popular adapters, whose scores are checked. For the others the digest alone is.
_SCORED = 1_000
_USERS = 8
_FOUNDATION = "foundation"


def many(setup: BenchmarkSetup) -> Outcome:
    """Load by 8 clients for 30 s for each number of adapters, each on a new server with a cache of 128 MiB."""
    seconds = setup.length(full=30.0, quick=2.0)
    empty = _trial(setup, 0, seconds)
    trials = {size: _trial(setup, size, seconds) for size in (QUICK_SIZES if setup.quick else SIZES)}
    stages = [_stage(size, trial) for size, trial in {0: empty, **trials}.items()]
    largest = max(trials)
    row = BenchmarkRow(
        benchmark="many",
        title=f"memory with {largest} adapters under Zipf traffic − an empty server",
        top=f"resident memory of rootstock serve --server {setup.server} with {largest} adapters registered, "
        f"after {seconds:g} s of {_USERS} clients",
        bottom="the same of a server without adapters, after embeddings of the same texts",
        unit="MB",
        pairs=[Pair(_resident(trials[largest]), _resident(empty))],
        target=targets.REGISTRY_MB,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"target: the budget of {targets.CACHE_MB:.0f} MB (ROOTSTOCK_CACHE_MB={targets.CACHE_MIB}) and "
            f"{targets.SPARE_MB:.0f} MB",
            "one pair; registry-scale repeats it and times the registry's look-ups",
        ],
    )
    faults = faults_row("many", [empty, *trials.values()])
    return Outcome([row, faults], stages, trials[largest].timeline())


def _trial(setup: BenchmarkSetup, size: int, seconds: float) -> Trial:
    needs = Needs(size, scored=_SCORED, texts_each=1, settings={"CACHE_MB": str(targets.CACHE_MIB)})
    phases = [Phase(f"{size} adapters", seconds, users=_USERS)]
    with scenario_fixture(setup, needs) as fixture:
        if size == 0:
            return run(setup, fixture, phases, {EMBEDDINGS: 1}, names=[_FOUNDATION])
        return run(setup, fixture, phases, {PREDICT: 1})


def _stage(size: int, trial: Trial) -> dict[str, Any]:
    return {"adapters": size, **trial.of(0).to_json(), **between(trial.samples[0], trial.samples[-1])}


def _resident(trial: Trial) -> float:
    return trial.samples[-1].resident_mb

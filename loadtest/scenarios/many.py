"""`many`: Zipf traffic over ever more registered adapters."""

from __future__ import annotations

from typing import Any

from rootstock.loadtest.load.outcome import Outcome, faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, ScenarioSetup, prepared
from rootstock.loadtest.load.samples import between
from rootstock.loadtest.load.traffic import EMBEDDINGS, PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

SIZES = (10, 100, 1_000, 10_000)
QUICK_SIZES = (4, 24)
# The most popular, whose scores are checked; of the others the digest.
_SCORED = 1_000
_USERS = 8
_CACHE_MIB = 128
_SPARE_MB = 50.0
_FOUNDATION = "foundation"


def many(setup: ScenarioSetup) -> Outcome:
    """30 s of 8 clients for each number of adapters, each time a new server with a cache of 128 MiB."""
    seconds = setup.sized(full=30.0, quick=2.0)
    empty = _trial(setup, 0, seconds)
    trials = {size: _trial(setup, size, seconds) for size in (QUICK_SIZES if setup.quick else SIZES)}
    stages = [_stage(size, trial) for size, trial in {0: empty, **trials}.items()]
    largest = max(trials)
    budget = _CACHE_MIB * 2**20 / 1e6
    row = BenchmarkRow(
        label="many",
        title=f"memory with {largest} adapters under Zipf traffic − an empty server",
        top=f"resident memory of rootstock serve --server {setup.server} with {largest} adapters registered, "
        f"after {seconds:g} s of {_USERS} clients",
        bottom="the same of a server without adapters, after embeddings of the same texts",
        unit="MB",
        pairs=[Pair(_resident(trials[largest]), _resident(empty))],
        target=budget + _SPARE_MB,
        measure=Measure.DIFFERENCE,
        at_most=True,
        notes=[
            f"target: the budget of {budget:.0f} MB (ROOTSTOCK_CACHE_MB={_CACHE_MIB}) and {_SPARE_MB:.0f} MB",
            "one pair; rootstock bench http --rows 9 repeats it, and times the registry's look-ups",
        ],
    )
    faults = faults_row("many", [empty, *trials.values()])
    return Outcome([row, faults], stages, trials[largest].timeline())


def _trial(setup: ScenarioSetup, size: int, seconds: float) -> Trial:
    needs = Needs(size, scored=_SCORED, texts_each=1, settings={"CACHE_MB": str(_CACHE_MIB)})
    phases = [Phase(f"{size} adapters", seconds, users=_USERS)]
    with prepared(setup, needs) as ready:
        if size == 0:
            return run(setup, ready, phases, {EMBEDDINGS: 1}, names=[_FOUNDATION])
        return run(setup, ready, phases, {PREDICT: 1})


def _stage(size: int, trial: Trial) -> dict[str, Any]:
    return {"adapters": size, **trial.of(0).to_json(), **between(trial.samples[0], trial.samples[-1])}


def _resident(trial: Trial) -> float:
    return trial.samples[-1].resident_mb

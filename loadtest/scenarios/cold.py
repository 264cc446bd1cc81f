"""`cold`: requests for adapters that are neither in a slot nor in memory."""

from __future__ import annotations

from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.load.faults import faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, scenario_fixture
from rootstock.loadtest.load.samples import between
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

# Two slots beside the reserved ones, and a cache of some three adapters.
_SETTINGS = {"SLOTS": "4", "CACHE_MB": "1"}
_COLD, _WARM = "cold", "warm adapter"


def cold(setup: BenchmarkSetup) -> Outcome:
    """Load by one client in windows of 2 s: under the next of 256 adapters, and under one, in turn."""
    window = setup.length(full=2.0, quick=1.0)
    pairs = setup.count(30, 2)
    turns = [
        phase
        for i in range(pairs)
        for phase in (
            Phase(_COLD, window, users=1, popularity="distinct"),
            Phase(_WARM, window, users=1, popularity="identical"),
        )[:: 1 - 2 * (i % 2)]
    ]
    with scenario_fixture(setup, Needs(setup.count(256, 24), texts_each=2, settings=_SETTINGS)) as fixture:
        trial = run(setup, fixture, [Phase("warm", 1.0, users=1), *turns], {PREDICT: 1})
    return Outcome([_row(trial), faults_row("cold", [trial])], trial.stages(), trial.timeline())


def _row(trial: Trial) -> BenchmarkRow:
    turns = zip(trial.numbers(_COLD), trial.numbers(_WARM), strict=True)
    loads = between(trial.samples[0], trial.samples[-1])["loads"]
    requests = sum(trial.of(i).counts.total() for i in trial.numbers(_COLD))
    return BenchmarkRow(
        benchmark="cold",
        title="a cold adapter's answer over HTTP − a warm one's, p50",
        top="one client, each request under another adapter: from disk, since neither slots nor cache hold it",
        bottom="one client, one adapter",
        unit="ms",
        pairs=[Pair(trial.of(c).latency_ms[50], trial.of(w).latency_ms[50]) for c, w in turns],
        measure=Measure.DIFFERENCE,
        notes=[
            "not judged: cold-start measures it in the engine",
            f"the server put {loads or 0:.0f} adapters into a slot; the cold windows had {requests} requests",
        ],
    )

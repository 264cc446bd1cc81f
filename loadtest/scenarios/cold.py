"""`cold`: every request is for an adapter that is neither in a slot nor in memory."""

from __future__ import annotations

from rootstock.loadtest.load.outcome import Outcome, faults_row
from rootstock.loadtest.load.plan import Phase
from rootstock.loadtest.load.preparation import Needs, ScenarioSetup, prepared
from rootstock.loadtest.load.samples import between
from rootstock.loadtest.load.traffic import PREDICT
from rootstock.loadtest.load.trial import Trial, run
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, Pair

# Two places beside the server's own, and a cache of some three adapters.
_SETTINGS = {"SLOTS": "4", "CACHE_MB": "1"}
_COLD, _WARM = "cold", "warm adapter"


def cold(setup: ScenarioSetup) -> Outcome:
    """One client; windows of 2 s in turn: each request under the next of 256 adapters, and all under one."""
    window = setup.sized(full=2.0, quick=1.0)
    pairs = setup.many(30, 2)
    turns = [
        phase
        for i in range(pairs)
        for phase in (
            Phase(_COLD, window, users=1, popularity="distinct"),
            Phase(_WARM, window, users=1, popularity="identical"),
        )[:: 1 - 2 * (i % 2)]
    ]
    with prepared(setup, Needs(setup.many(256, 24), texts_each=2, settings=_SETTINGS)) as ready:
        trial = run(setup, ready, [Phase("warm", 1.0, users=1), *turns], {PREDICT: 1})
    return Outcome([_row(trial), faults_row("cold", [trial])], trial.stages(), trial.timeline())


def _row(trial: Trial) -> BenchmarkRow:
    turns = zip(trial.numbers(_COLD), trial.numbers(_WARM), strict=True)
    loads = between(trial.samples[0], trial.samples[-1])["loads"]
    asked = sum(trial.of(i).counts.total() for i in trial.numbers(_COLD))
    return BenchmarkRow(
        label="cold",
        title="a cold adapter's answer over HTTP − a warm one's, p50",
        top="one client, each request under another adapter: from disk, since neither slots nor cache hold it",
        bottom="one client, one adapter",
        unit="ms",
        pairs=[Pair(trial.of(c).latency_ms[50], trial.of(w).latency_ms[50]) for c, w in turns],
        measure=Measure.DIFFERENCE,
        notes=[
            "not judged: row 8 measures it in the engine",
            f"the server put {loads or 0:.0f} adapters into a slot; the cold windows had {asked} requests",
        ],
    )

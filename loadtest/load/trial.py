"""One server under one plan: started, loaded from a process of its own, watched, stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rootstock.loadtest.fixtures.server import serving
from rootstock.loadtest.load.plan import LoadPlan, Phase
from rootstock.loadtest.load.preparation import ScenarioFixture, ScenarioSetup
from rootstock.loadtest.load.record import CALLER, MOVER, PHASES, RECORDS, Record, read_records
from rootstock.loadtest.load.samples import ResourceSample, sampling
from rootstock.loadtest.load.summary import Summary, summarize
from rootstock.loadtest.load.timeline import timeline
from rootstock.loadtest.load.verdict import Verdict
from rootstock.loadtest.measure.machine import ROOT


class GeneratorFailed(Exception):
    """The load generator's process ended with an error: holds the end of what it said."""


class NothingAnswered(Exception):
    """A phase without a single right answer: there are no figures to take from it."""


@dataclass(frozen=True)
class Trial:
    """What came of a plan: every request, each phase as it ran, and what the server told meanwhile."""

    records: Sequence[Record]
    phases: Sequence[Mapping[str, Any]]
    samples: Sequence[ResourceSample]

    def of(self, number: int, who: str = CALLER) -> Summary:
        """The figures of one phase."""
        found = [r for r in self.records if r.phase == number and r.who == who]
        return summarize(found, self.phases[number]["start"], self.phases[number]["seconds"])

    def numbers(self, name: str) -> list[int]:
        """The phases of a name, in order."""
        return [i for i, phase in enumerate(self.phases) if phase["name"] == name]

    def during(self, number: int) -> list[ResourceSample]:
        """The samples in a phase."""
        phase = self.phases[number]
        return [one for one in self.samples if phase["start"] <= one.at <= phase["end"]]

    def stages(self) -> list[dict[str, Any]]:
        """Each phase with its figures, JSON-ready."""
        return [
            {"phase": phase["name"], "users": phase["users"], "rate": phase["rate"], **self.of(i).to_json()}
            for i, phase in enumerate(self.phases)
        ]

    def timeline(self) -> list[dict[str, Any]]:
        """The run from second to second."""
        return timeline(self.records, self.samples, [phase["name"] for phase in self.phases])

    @property
    def moves(self) -> Summary:
        """Of what was published and activated."""
        return self._of_all([r for r in self.records if r.who == MOVER])

    @property
    def all(self) -> Summary:
        """Of every request, the flood's too."""
        return self._of_all([r for r in self.records if r.who != MOVER])

    def _of_all(self, records: Sequence[Record]) -> Summary:
        start = float(self.phases[0]["start"])
        return summarize(records, start, float(self.phases[-1]["end"]) - start)

    @property
    def details(self) -> list[str]:
        """What was wrong with the first answers that were."""
        return [f"{r.kind}: {r.verdict}: {r.detail}" for r in self.records if r.detail][:5]


def run(
    setup: ScenarioSetup, ready: ScenarioFixture, phases: Sequence[Phase], mix: Mapping[str, float], **more: Any
) -> Trial:
    """Start a server on the prepared home, run the phases against it, stop it. `more`: other fields of the plan.

    ServerFailed, GeneratorFailed and NothingAnswered where there is nothing to judge.
    """
    setup.say(f"starting the server under {setup.server}")
    settings = dict(ready.settings)
    with (
        TemporaryDirectory(prefix="rootstock-bench-") as root,
        serving(setup.server, setup.export, setup.threads, home=ready.home, settings=settings) as served,
    ):
        folder = Path(root)
        plan = LoadPlan(served.url, ready.names, phases, mix, moves=ready.moves)
        replace(plan, **more).write(folder / "plan.json")
        ready.oracle.write(folder / "oracle.json")
        with sampling(served) as samples:
            _generate(folder)
        records = read_records(folder / RECORDS)
        trial = Trial(records, json.loads((folder / PHASES).read_text(encoding="utf-8")), samples)
    for number, phase in enumerate(trial.phases):
        if not trial.of(number).counts[Verdict.OK]:
            raise NothingAnswered(
                f"phase {phase['name']} has no right answer; of all: {'; '.join(trial.details)}"
            )
    return trial


def _generate(folder: Path) -> None:
    files = [str(folder / "plan.json"), str(folder / "oracle.json"), str(folder)]
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "rootstock.loadtest.load.generator", *files],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise GeneratorFailed(f"the load generator ended with {done.returncode}: {done.stderr[-2000:]}")

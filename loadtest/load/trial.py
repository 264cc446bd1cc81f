"""One server under one plan: start it, load it from a separate process, sample it, stop it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rootstock.loadtest.fixtures.server import rootstock_server
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.judgement.verdict import Verdict
from rootstock.loadtest.load.plan import LoadPlan, Phase
from rootstock.loadtest.load.preparation import ScenarioFixture
from rootstock.loadtest.load.record import CALLER, MOVER, PHASES, RECORDS, Record, read_records
from rootstock.loadtest.load.samples import ResourceSample, server_samples
from rootstock.loadtest.load.summary import Summary, summarize
from rootstock.loadtest.load.timeline import timeline
from rootstock.loadtest.measure.machine import ROOT


class GeneratorFailed(Exception):
    """The load generator's process ended with an error. Holds the end of its output."""


class NothingAnswered(Exception):
    """A phase without a right answer, which therefore has no figures."""


@dataclass(frozen=True)
class Trial:
    """The result of a plan: every request, each phase as it ran, and samples of the server."""

    records: Sequence[Record]
    phases: Sequence[Mapping[str, Any]]
    samples: Sequence[ResourceSample]

    def of(self, number: int, who: str = CALLER) -> Summary:
        """Return the figures of one phase."""
        records = [r for r in self.records if r.phase == number and r.who == who]
        return summarize(records, self.phases[number]["start"], self.phases[number]["seconds"])

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the phases of a name, in order."""
        return [i for i, phase in enumerate(self.phases) if phase["name"] == name]

    def during(self, number: int) -> list[ResourceSample]:
        """Return the samples in a phase."""
        phase = self.phases[number]
        return [one for one in self.samples if phase["start"] <= one.at <= phase["end"]]

    def stages(self) -> list[dict[str, Any]]:
        """Return each phase with its figures, JSON-ready."""
        return [
            {"phase": phase["name"], "users": phase["users"], "rate": phase["rate"], **self.of(i).to_json()}
            for i, phase in enumerate(self.phases)
        ]

    def timeline(self) -> list[dict[str, Any]]:
        """Return the run second by second."""
        return timeline(self.records, self.samples, [phase["name"] for phase in self.phases])

    @property
    def moves(self) -> Summary:
        """Return the figures of the versions that were published or activated."""
        return self._of_all([r for r in self.records if r.who == MOVER])

    @property
    def all(self) -> Summary:
        """Return the figures of every request, the flood's too."""
        return self._of_all([r for r in self.records if r.who != MOVER])

    def _of_all(self, records: Sequence[Record]) -> Summary:
        start = float(self.phases[0]["start"])
        return summarize(records, start, float(self.phases[-1]["end"]) - start)

    @property
    def details(self) -> list[str]:
        """Return the faults of the first five answers that have one."""
        return [f"{r.kind}: {r.verdict}: {r.detail}" for r in self.records if r.detail][:5]


def run(
    setup: BenchmarkSetup,
    fixture: ScenarioFixture,
    phases: Sequence[Phase],
    mix: Mapping[str, float],
    **more: Any,
) -> Trial:
    """Start a server on the fixture's home, run the phases against it, stop it. `more`: other fields of the plan.

    Raise ServerFailed, GeneratorFailed or NothingAnswered if there is nothing to judge.
    """
    setup.say(f"starting the server under {setup.server}")
    settings = dict(fixture.settings)
    with (
        TemporaryDirectory(prefix="rootstock-bench-") as root,
        rootstock_server(
            setup.server, setup.export, setup.threads, fixture.foundation, fixture.home, settings
        ) as server,
    ):
        folder = Path(root)
        plan = LoadPlan(server.url, fixture.names, phases, mix, moves=fixture.moves)
        replace(plan, **more).write(folder / "plan.json")
        fixture.oracle.write(folder / "oracle.json")
        with server_samples(server) as samples:
            _generate(folder)
        records = read_records(folder / RECORDS)
        trial = Trial(records, json.loads((folder / PHASES).read_text(encoding="utf-8")), samples)
    for number, phase in enumerate(trial.phases):
        if not trial.of(number).counts[Verdict.OK]:
            raise NothingAnswered(
                f"phase {phase['name']} has no right answer; the first faults: {'; '.join(trial.details)}"
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
        raise GeneratorFailed(f"the load generator ended with exit code {done.returncode}: {done.stderr[-2000:]}")

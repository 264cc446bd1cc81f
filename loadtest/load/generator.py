"""The load generator's process: `python -m rootstock.loadtest.load.generator PLAN ORACLE FOLDER`.

It runs a plan's phases with Locust's library API and writes records.csv and phases.json into FOLDER. It is a
separate process because the import of Locust patches the standard library for gevent.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from locust.env import Environment

from rootstock.loadtest.judgement.ledger import Ledger
from rootstock.loadtest.judgement.oracle import Oracle
from rootstock.loadtest.judgement.verdict import Verdict
from rootstock.loadtest.load.plan import LoadPlan, Phase
from rootstock.loadtest.load.record import CALLER, PHASES, RECORDS, write_records
from rootstock.loadtest.load.traffic import PREDICT, TrafficMix
from rootstock.loadtest.load.users import Arrivals, Caller, Flooder, Mover, Run


def run_plan(plan: LoadPlan, oracle: Oracle, say: Callable[[str], None]) -> tuple[Run, list[dict[str, Any]]]:
    """Run every phase. Return the records, and each phase's name, start, end and arrivals a second."""
    run = Run(oracle, _ledger(plan, oracle), list(plan.moves))
    users = [Caller, Arrivals, Flooder, Mover]
    for user in users:
        user.host = plan.url
    # A fault of the generator ends the user. It is not tried again.
    environment = Environment(user_classes=users, catch_exceptions=False)
    environment.run = run
    runner = environment.create_local_runner()
    phases: list[dict[str, Any]] = []
    capacity = 0.0
    try:
        for number, phase in enumerate(plan.phases):
            _begin(run, plan, number, capacity)
            # Each user ends by itself when its phase is over and its last answer is there.
            runner.spawn_users(_users(phase, run.rate), wait=True)
            end = time.monotonic()
            if run.fault is not None:
                raise run.fault
            if phase.calibrates:
                # Answers may come after the phase, while the last requests end.
                capacity = _right_answers(run, number) / (end - run.start)
            phases.append(
                {
                    "name": phase.name,
                    "start": run.start,
                    "end": end,
                    "seconds": phase.seconds,
                    "rate": run.rate,
                    "of_capacity": phase.of_capacity,
                    "users": phase.users,
                }
            )
            say(f"phase {number + 1} of {len(plan.phases)}, {phase.name}: {_right_answers(run, number)} right")
    finally:
        runner.quit()
    return run, phases


def _begin(run: Run, plan: LoadPlan, number: int, capacity: float) -> None:
    """Set the run's phase, rate and traffic. The phase starts now."""
    phase = plan.phases[number]
    run.number, run.phase = number, phase
    run.rate = phase.rate or phase.of_capacity * capacity
    popularity, seed = phase.popularity or plan.popularity, plan.seed + number
    run.traffic = TrafficMix(run.oracle, run.ledger, plan.names, popularity, plan.mix, plan.inputs, seed)
    if plan.flooding:
        names, mix = [plan.flooding], {PREDICT: 1.0}
        run.flood = TrafficMix(run.oracle, run.ledger, names, "identical", mix, plan.flood_inputs, plan.seed)
    run.start = time.monotonic()


def _users(phase: Phase, rate: float) -> dict[str, int]:
    return {
        Caller.__name__: phase.users,
        Arrivals.__name__: int(rate > 0),
        Flooder.__name__: phase.flood,
        Mover.__name__: int(phase.moves_s > 0),
    }


def _right_answers(run: Run, number: int) -> int:
    return sum(r.phase == number and r.who == CALLER and r.verdict == Verdict.OK for r in run.records)


def _ledger(plan: LoadPlan, oracle: Oracle) -> Ledger:
    """Return a ledger in which version 1 of every name is live."""
    return Ledger({version.name: digest for digest, version in oracle.versions.items() if version.number == 1})


def main() -> None:
    """Run the plan of the command line."""
    plan, oracle = LoadPlan.read(Path(sys.argv[1])), Oracle.read(Path(sys.argv[2]))
    folder = Path(sys.argv[3])
    logging.getLogger("locust").setLevel(logging.ERROR)

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    run, phases = run_plan(plan, oracle, say)
    write_records(folder / RECORDS, run.records)
    (folder / PHASES).write_text(json.dumps(phases), encoding="utf-8")


if __name__ == "__main__":
    main()

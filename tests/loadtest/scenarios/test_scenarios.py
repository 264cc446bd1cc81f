"""Every scenario runs against the real server, no answer is wrong, its report is whole. No timing is asserted."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.loadtest.scenarios import SCENARIOS

ROOT = Path(__file__).parents[3]
# The others only with the slow tests: together they take minutes.
FAST = ("churn", "ramp")


def bench(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootstock.adapters.cli.console", "bench", "http", *arguments],
        env={**os.environ, "ROOTSTOCK_HOME": str(home)},
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


# Seconds on a machine that has nothing else to do.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SCENARIOS])
def test_a_scenario_finds_no_wrong_answer_and_leaves_its_report(name: str, home: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.json"
    done = bench(home, "--scenario", name, "--quick", "--server", "uvicorn", "--json", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    faults = next(row for row in content["rows"] if row["title"].startswith("answers failed"))
    assert faults["median"] == 0
    assert sum(stage["ok"] for stage in content["stages"]) > 0
    assert sum(stage["scored"] for stage in content["stages"]) > 0
    assert any(row.get("batch_rows") is not None for row in content["timeline"])
    with out.with_suffix(".csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(content["timeline"])
    page = out.with_suffix(".html").read_text()
    assert page.count("<svg") >= 5
    assert "Latency from the intended start" in page
    assert not any(outside in page for outside in ('src="http', "<script", "@import", "<link"))
    assert str(home) not in page


def test_an_unknown_scenario_is_refused(home: Path) -> None:
    done = bench(home, "--scenario", "storm")
    assert done.returncode == 2
    assert "expected one of steady, ramp, many" in done.stderr


def test_rows_and_a_scenario_together_are_refused(home: Path) -> None:
    done = bench(home, "--scenario", "churn", "--rows", "3")
    assert done.returncode == 2
    assert "do not belong to --scenario" in done.stderr

"""Every scenario runs against the real server, no answer is wrong, its page is whole. No timing is asserted."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootstock.loadtest.catalogue import Command, names_of
from tests.chat_foundation import needs_chat

ROOT = Path(__file__).parents[3]
# The others only with the slow tests: together they take minutes.
SCENARIOS = names_of(Command.SCENARIO)


def marked(name: str) -> Any:
    return pytest.param(name, marks=needs_chat) if name == "chat" else name


def bench(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootstock.adapters.cli.console", "bench", *arguments],
        env={**os.environ, "ROOTSTOCK_HOME": str(home)},
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.slow
# Seconds on a machine that has nothing else to do.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [marked(name) for name in SCENARIOS])
def test_a_scenario_finds_no_wrong_answer_and_its_page_shows_it(name: str, home: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.json"
    done = bench(home, "http", "--scenario", name, "--quick", "--server", "uvicorn", "--json", str(out))
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    faults = next(row for row in content["rows"] if row["title"].startswith("answers failed"))
    assert faults["median"] == 0
    assert sum(stage["ok"] for stage in content["stages"]) > 0
    assert sum(stage["scored"] for stage in content["stages"]) > 0
    assert any(row.get("batch_rows") is not None for row in content["timeline"])
    rendered = bench(home, "render", str(out), "--out", str(tmp_path / "rendered"))
    assert rendered.returncode == 0, rendered.stderr
    with (tmp_path / "rendered" / f"{name}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(content["timeline"])
    page = (tmp_path / "rendered" / f"{name}.html").read_text()
    assert page.count("<svg") >= 5
    assert "Latency from the intended start" in page
    assert not any(outside in page for outside in ('src="http', "<script", "@import", "<link"))
    assert str(home) not in page


def test_an_unknown_scenario_is_refused(home: Path) -> None:
    done = bench(home, "http", "--scenario", "storm")
    assert done.returncode == 2
    assert "choose one of steady, ramp, many" in done.stderr


def test_rows_and_a_scenario_together_are_refused(home: Path) -> None:
    done = bench(home, "http", "--scenario", "churn", "--rows", "throughput")
    assert done.returncode == 2
    assert "do not belong to --scenario" in done.stderr

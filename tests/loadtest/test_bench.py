"""`rootstock bench` runs end to end. No timing is asserted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootstock.loadtest.measure import wrk
from rootstock.loadtest.peers import infinity
from rootstock.loadtest.report.render import render

ROOT = Path(__file__).parents[2]


def bench(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rootstock.adapters.cli.console", "bench", *arguments],
        env={**os.environ, "ROOTSTOCK_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def figures(done: subprocess.CompletedProcess[str], path: Path) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    for row in content["rows"]:
        assert len(row["pairs"]) == 2
        assert all(pair["top"] > 0 and pair["bottom"] > 0 for pair in row["pairs"])
        assert row["interval"][0] <= row["median"] <= row["interval"][1]
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_rows_by_name_are_measured_and_kept(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "fan-out.json"
    rows = figures(
        bench(home, "engine", "--quick", "--threads", "1", "--rows", "fan-out", "--json", str(out)), out
    )
    assert [(row["benchmark"], row["target"]) for row in rows] == [("fan-out", 12.0), ("fan-out", 12.0)]
    assert str(home) not in out.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason=wrk.MISSING)
def test_throughput_runs(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "throughput.json"
    rows = figures(bench(home, "http", "--rows", "throughput", "--quick", "--json", str(out)), out)
    assert [(row["benchmark"], row["target"]) for row in rows] == [("throughput", 0.5), ("throughput", 0.6)]
    assert rows[0]["extra"]["latency"].keys() == {"32", "1"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason=wrk.MISSING)
def test_rows_against_peers_run_and_make_one_page(home: Path, tmp_path: Path) -> None:
    names = "vs-set-adapter,vs-infinity" if infinity.INFINITY.installed else "vs-set-adapter"
    out = tmp_path / "peers.json"
    done = bench(home, "http", "--rows", names, "--quick", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert set(names.split(",")) == {row["benchmark"] for row in rows}
    assert [row["target"] for row in rows] == ([6.0, 2.5, 0.4, None] if infinity.INFINITY.installed else [6.0])
    render(out, tmp_path / "rendered")
    assert (tmp_path / "rendered" / "peers.html").read_text().count("<svg") == len(rows)


def test_a_name_of_another_command_is_refused(home: Path) -> None:
    done = bench(home, "engine", "--rows", "fan-out,throughput")
    assert done.returncode == 2
    assert "'throughput' is unknown here; choose from plain-export, adapters-vs-bare, " in done.stderr


def test_full_without_sweep_is_refused(home: Path) -> None:
    done = bench(home, "engine", "--full")
    assert done.returncode == 2
    assert "--full belongs to --sweep" in done.stderr


def test_without_wrk_one_line_says_how_to_install_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    done = bench(home, "http", "--quick")
    assert done.returncode == 1
    assert "apt-get install wrk" in done.stderr
    assert "Traceback" not in done.stderr

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
    assert path.with_suffix(".png").is_file()
    for row in content["rows"]:
        assert len(row["pairs"]) == 2
        assert all(pair["top"] > 0 and pair["bottom"] > 0 for pair in row["pairs"])
        assert row["interval"][0] <= row["median"] <= row["interval"][1]
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_rows_by_label_are_measured_and_kept(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "six.json"
    rows = figures(bench(home, "engine", "--quick", "--threads", "1", "--rows", "6", "--json", str(out)), out)
    assert [(row["row"], row["target"]) for row in rows] == [("6", 12.0), ("6", 12.0)]
    assert str(home) not in out.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason=wrk.MISSING)
def test_row_4_runs(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "four.json"
    rows = figures(bench(home, "http", "--rows", "4", "--quick", "--json", str(out)), out)
    assert [(row["row"], row["target"]) for row in rows] == [("4", 0.5), ("4", 0.6)]
    assert rows[0]["extra"]["latency"].keys() == {"32", "1"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason=wrk.MISSING)
def test_rows_against_peers_and_under_churn_run_and_make_one_page(home: Path, tmp_path: Path) -> None:
    installed = (infinity.environment_folder() / infinity.DONE).is_file()
    labels = "3,5,9,11" if installed else "3,9,11"
    out = tmp_path / "served.json"
    done = bench(home, "http", "--rows", labels, "--quick", "--server", "uvicorn", "--json", str(out))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert set(labels.split(",")) == {row["row"] for row in rows}
    targets = {row["title"]: row["target"] for row in rows if row["row"] in ("3", "5")}
    assert list(targets.values())[: 3 if installed else 1] == [6.0, 2.5, 0.4][: 3 if installed else 1]
    assert out.with_suffix(".html").read_text().count("<svg") >= 3


def test_a_row_that_is_not_there_is_refused(home: Path) -> None:
    done = bench(home, "engine", "--rows", "1,3")
    assert done.returncode == 2
    assert "expected one or more of plain, 1, 1b, 2, 6, 7, 8, loads, 9, 10" in done.stderr


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

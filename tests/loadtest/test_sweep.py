"""A sweep changes one factor at a time, or all; each cell's batches hold what the cell says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from rootstock.loadtest.engine.sweep import CENTRE, FACTORS, Cell, SweepRun, _batches, cells, sweep
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.machine import describe_machine
from rootstock.loadtest.report.sweep_chart import draw_sweep, show_sweep


def test_by_default_one_factor_differs_from_the_centre() -> None:
    chosen = cells(full=False)
    assert CENTRE in chosen
    assert len(chosen) == len(set(chosen)) == 1 + sum(len(values) - 1 for values in FACTORS.values())
    for cell in chosen:
        assert sum(value != asdict(CENTRE)[name] for name, value in asdict(cell).items()) <= 1


def test_full_is_every_combination() -> None:
    assert len(set(cells(full=True))) == 5 * 4 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("popularity", "distinct"), [("identical", {1}), ("distinct", {4}), ("zipf", {1, 2, 3, 4})]
)
def test_a_batch_is_as_the_cell_says(export_folder: Path, popularity: str, distinct: set[int]) -> None:
    from rootstock.loadtest.fixtures.runner_bench import open_bench

    bench = open_bench(export_folder, 8, 1, adapters=4)
    for batch in _batches(bench, Cell(4, popularity, 8, 4, 12)):
        assert batch.lengths == (12,) * 4
        assert len(set(batch.slots)) in distinct
        assert 0 not in batch.slots


@pytest.mark.usefixtures("quick")
def test_points_are_reported(setup: BenchmarkSetup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    chosen = [Cell(4, "uniform", 8, 8, 16), Cell(1, "distinct", 16, 1, 16)]
    points = sweep(setup, chosen)
    run = SweepRun(describe_machine(), {"full": True}, points)
    run.write(tmp_path / "sweep.json")
    draw_sweep(run, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    show_sweep(run)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert SweepRun.from_json(content) == run
    assert [point["rank"] for point in content["points"]] == [8, 16]
    for point in content["points"]:
        pair = point["pairs"][0]
        assert point["rows_s"] == pytest.approx(point["batch"] / pair["seconds"])
        assert point["ratio"] == pytest.approx(pair["bare_s"] / pair["seconds"])
    assert "uniform" in capsys.readouterr().out

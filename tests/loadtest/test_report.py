"""A row is met where its interval reaches the target; a run holds every pair and no name of the machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from rootstock.loadtest.catalogue import CATALOGUE
from rootstock.loadtest.measure.machine import ROOT, describe_machine
from rootstock.loadtest.measure.outcome import BenchmarkRun, Outcome
from rootstock.loadtest.measure.pairs import interleave
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun, Pair
from rootstock.loadtest.report.chart import draw
from rootstock.loadtest.report.table import show, verdict


def row(ratios: list[float], target: float | None) -> BenchmarkRow:
    return BenchmarkRow("fan-out", "a ÷ b", "a", "b", "seconds", [Pair(r, 1.0) for r in ratios], target)


def ceiling(
    tops: list[float], bottom: float, target: float, measure: Measure = Measure.DIFFERENCE
) -> BenchmarkRow:
    pairs = [Pair(top, bottom) for top in tops]
    return BenchmarkRow("cold-start", "a − b", "a", "b", "ms", pairs, target, measure=measure, at_most=True)


RATIOS = [0.90 + i / 1000 for i in range(30)]


def test_a_row_is_met_where_the_interval_s_upper_end_reaches_the_target() -> None:
    high = row(RATIOS, None).interval.high
    assert row(RATIOS, high).met is True
    assert row(RATIOS, high + 1e-9).met is False
    assert row(RATIOS, None).met is None


def test_a_ceiling_is_met_where_the_interval_s_lower_end_is_not_above_it() -> None:
    tops = [20.0 + i for i in range(30)]
    low = ceiling(tops, 5.0, 0).interval.low
    assert low == tops[9] - 5
    assert ceiling(tops, 5.0, low).met is True
    assert ceiling(tops, 5.0, low - 1e-9).met is False
    assert ceiling(tops, 5.0, tops[9], Measure.TOP).met is True
    assert ceiling(tops, 5.0, tops[9] - 1e-9, Measure.TOP).met is False


def test_the_verdict_is_in_doubt_where_the_pairs_are_too_few() -> None:
    assert verdict(row(RATIOS, 0.9)) == "yes"
    assert verdict(row(RATIOS, 1.0)) == "no"
    assert verdict(row(RATIOS[:3], 0.9)) == "yes?"
    assert verdict(row(RATIOS, None)) == ""


def test_the_json_holds_every_pair_and_what_judged_it(tmp_path: Path) -> None:
    rows = [row(RATIOS, 0.95), row([1.0, 2.0], None)]
    run = BenchmarkRun(describe_machine(), {"pairs": 30}, Outcome(rows))
    run.write(tmp_path / "new" / "out.json")
    content = json.loads((tmp_path / "new" / "out.json").read_text())
    first, second = content["rows"]
    assert [pair["figure"] for pair in first["pairs"]] == RATIOS
    assert (first["target"], first["met"]) == (0.95, False)
    assert first["interval"] == [RATIOS[9], RATIOS[20]]
    assert second["met"] is None
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["libraries"]["numpy"]


def test_the_machine_s_name_and_paths_are_not_in_it() -> None:
    text = json.dumps(describe_machine())
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
    assert platform.node() not in text.split('"')


def test_the_table_shows_median_target_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    show(BenchmarkRun(describe_machine(), {}, Outcome([row(RATIOS, 0.95)])))
    shown = capsys.readouterr().out
    assert f"{row(RATIOS, None).interval.median:.3f}" in shown
    assert "≥ 0.95" in shown
    assert "no" in shown


def test_a_difference_is_shown_in_its_unit_under_its_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [ceiling([21.0] * 30, 5.0, 25), ceiling([3.5] * 30, 0, 3, Measure.TOP)]
    show(BenchmarkRun(describe_machine(), {}, Outcome(rows)))
    shown = capsys.readouterr().out
    assert "16 ms" in shown
    assert "≤ 25 ms" in shown
    assert "3.5 ms" in shown
    assert "yes" in shown
    assert "no" in shown


def test_a_row_that_could_not_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [NotRun("vs-peft", "against x", "x is not installed"), row(RATIOS, 0.9)]
    run = BenchmarkRun(describe_machine(), {}, Outcome(rows))
    show(run)
    shown = capsys.readouterr().out
    assert "not run: x is not installed" in shown
    run.write(tmp_path / "out.json")
    first, second = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert first == {"benchmark": "vs-peft", "title": "against x", "not_run": "x is not installed"}
    assert second["met"] is True


def test_the_chart_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw([row(RATIOS, 0.95), *[ceiling(RATIOS, 0.5, 0.6)] * 4], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_sides_run_in_turns_in_alternating_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootstock.loadtest.measure.pairs.SETTLE_S", 0.0)
    calls: list[str] = []
    pairs = interleave(lambda: calls.append("a"), lambda: calls.append("b"), pairs=2, runs=1)
    # One untimed run before each timed one; both sides once before the first pair.
    assert "".join(calls) == "aabb" + "aabb" + "bbaa"
    assert len(pairs) == 2


def test_a_name_is_whole_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = max(CATALOGUE, key=len)
    show(BenchmarkRun(describe_machine(), {}, Outcome([NotRun(name, "title " * 20, "reason")])))
    assert f" {name} " in capsys.readouterr().out

"""Every row of `rootstock bench engine` runs, checks its answers and has the target of design section 9."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.cli import ENGINE_ROWS
from rootstock.loadtest.engine import registry_scale as registry_rows
from rootstock.loadtest.engine import vs_peft as peer_rows
from rootstock.loadtest.engine.adapters_vs_bare import foundation_row, head_only_row, plain_rows
from rootstock.loadtest.engine.cold_start import cold_rows, loads_row
from rootstock.loadtest.engine.fan_out import top_row, unshared_row
from rootstock.loadtest.engine.registry_scale import RegistryLoad
from rootstock.loadtest.engine.rows import ROWS
from rootstock.loadtest.engine.startup import start_rows
from rootstock.loadtest.fixtures.registration import register
from rootstock.loadtest.fixtures.runner_bench import Bench
from rootstock.loadtest.measure.agreement import Disagreement
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

pytestmark = pytest.mark.usefixtures("quick")


def say(_: str) -> None: ...


def targets(rows: Sequence[BenchmarkRow | NotRun]) -> list[tuple[str, float | None, bool]]:
    """Label, target and whether it is a ceiling, of rows that all have one measurement of plausible sign."""
    measured = [row for row in rows if isinstance(row, BenchmarkRow)]
    assert len(measured) == len(rows)
    for row in measured:
        assert all(pair.top > 0 for pair in row.pairs)
        assert row.measure is Measure.TOP or all(pair.bottom > 0 for pair in row.pairs)
    return [(row.label, row.target, row.at_most) for row in measured]


def test_the_command_offers_the_rows_that_there_are() -> None:
    assert list(ENGINE_ROWS) == list(ROWS)


def test_rows_1_and_1b_run(export_folder: Path) -> None:
    rows = [foundation_row(export_folder, 16, 1, 1, say), head_only_row(export_folder, 16, 1, 1, say)]
    assert targets(rows) == [("1", 0.9, False), ("1b", None, False)]


def test_row_7_runs(export_folder: Path) -> None:
    rows = [top_row(export_folder, 16, 1, 1, say), unshared_row(export_folder, 16, 1, 1, say)]
    assert targets(rows) == [("7", 4.0, False), ("7", 2.2, False)]
    assert "layers 5 and 6" in rows[0].title


def test_row_7_counts_no_wrong_answer(export_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRunner.run

    def swapped(self: OnnxRunner, batch: object) -> list[np.ndarray]:
        answers = run(self, batch)  # type: ignore[arg-type]
        return answers[::-1] if len(batch.lengths) == 1 < len(answers) else answers  # type: ignore[attr-defined]

    monkeypatch.setattr(OnnxRunner, "run", swapped)
    with pytest.raises(Disagreement, match="shared against unshared"):
        unshared_row(export_folder, 16, 1, 1, say)


def test_row_8_runs(export_folder: Path) -> None:
    rows = cold_rows(export_folder, 2, 1, say)
    assert targets(rows) == [("8", 25.0, True), ("8", 2.0, True)]
    assert [len(row.pairs) for row in rows] == [2, 2]


def test_row_8_refuses_an_adapter_that_is_warm(export_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootstock.loadtest.engine.cold_start._ONE_SLOT", 256)
    with pytest.raises(Disagreement, match="is in the slot before its first call"):
        cold_rows(export_folder, 2, 1, say)


def test_row_loads_counts_loads_from_the_store(export_folder: Path) -> None:
    row = loads_row(export_folder, 24, 1, say)
    assert targets([row]) == [("loads", None, False)]
    assert len(row.extra["seconds"]) == 24
    assert row.top.startswith("loads 14 to 24")


def test_row_loads_refuses_a_load_from_memory(export_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootstock.loadtest.engine.cold_start.EngineLimits", lambda cache_bytes: EngineLimits())
    with pytest.raises(Disagreement, match="not in the store"):
        loads_row(export_folder, 24, 1, say)


def test_row_9_s_look_ups_run(tmp_path: Path, spec: FoundationSpec) -> None:
    names = register(tmp_path, spec, 3, say)
    digests = registry_rows.digests_of(tmp_path, names)
    row = registry_rows.look_up_row(tmp_path, digests, 2, say)
    assert targets([row]) == [("9", 1.0, True)]
    with pytest.raises(Disagreement, match="not wrong"):
        registry_rows.look_up_row(tmp_path, dict.fromkeys(names, "wrong"), 1, say)


def test_row_9_says_so_where_the_disk_is_too_small(export_folder: Path) -> None:
    (row,) = registry_rows.registry_rows(export_folder, RegistryLoad(10**12, 1, 1), 1, 1, say)
    assert isinstance(row, NotRun)
    assert "GB free" in row.reason


def test_row_2_says_so_where_sentence_transformers_is_missing(
    foundation: FoundationFiles, export_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    row = peer_rows.sentence_row(foundation.folder, export_folder, 1, 1, say)
    assert isinstance(row, NotRun)
    assert "sentence-transformers is not installed" in row.reason


@pytest.mark.slow
def test_row_plain_runs(foundation: FoundationFiles, export_folder: Path) -> None:
    assert targets(plain_rows(foundation.folder, export_folder, 1, 1, say)) == [("plain", 1.0, False)] * 3


@pytest.mark.slow
def test_row_2_s_peers_run(foundation: FoundationFiles, export_folder: Path) -> None:
    assert targets(peer_rows.peft_rows(foundation.folder, export_folder, 1, 1, say)) == [
        ("2", 2.0, False),
        ("2", None, False),
    ]
    assert targets([peer_rows.sentence_row(foundation.folder, export_folder, 1, 1, say)]) == [("2", None, False)]


@pytest.mark.slow
def test_row_9_runs(export_folder: Path) -> None:
    rows = registry_rows.registry_rows(export_folder, RegistryLoad(20, 30, 1), 1, 1, say)
    # 128 MiB of cache in MB, and 50.
    assert targets(rows) == [("9", pytest.approx(134.2 + 50, abs=0.1), True), ("9", 1.0, True)]


@pytest.mark.slow
def test_row_10_runs(export_folder: Path) -> None:
    rows = start_rows(export_folder, 1, 1, say)
    assert targets(rows) == [("10", 3.0, True), ("10", 3.0, True), ("10", 400.0, True), ("10", 400.0, True)]


def test_sides_of_a_bench_are_what_they_say(export_folder: Path) -> None:
    from rootstock.loadtest.fixtures.runner_bench import open_bench

    bench: Bench = open_bench(export_folder, 8, 1, adapters=3)
    assert bench.mixed(shift=1).slots == (2, 3, 1)
    assert bench.under(0, 2).slots == (0, 0)
    assert bench.of_one_text().inputs == (0, 0, 0)
    assert len(bench.mixed().lengths) == 3

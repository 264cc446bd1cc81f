"""Every engine benchmark runs, checks its answers and judges by its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError
from rootstock.adapters.spec import FoundationSpec
from rootstock.loadtest.engine.adapters_vs_bare import foundation_row, head_row, plain_export
from rootstock.loadtest.engine.cold_start import cold_rows, loads_row
from rootstock.loadtest.engine.compositions import compositions
from rootstock.loadtest.engine.fan_out import top_row, unshared_row
from rootstock.loadtest.engine.images import bare_rows, image_heads_rows, image_peft_rows, images_vs_bare
from rootstock.loadtest.engine.registry_scale import RegistryLoad, look_up_row, registry_rows
from rootstock.loadtest.engine.startup import start_rows
from rootstock.loadtest.engine.vs_peft import peft_rows, sentence_row
from rootstock.loadtest.fixtures.registration import digests_of, register
from rootstock.loadtest.fixtures.runner_bench import Bench, open_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.agreement import Disagreement
from rootstock.loadtest.measure.row import BenchmarkRow, Measure, NotRun
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from tests.media_foundations import make_media_foundation

pytestmark = pytest.mark.usefixtures("quick")


def say(_: str) -> None: ...


def targets(rows: Sequence[BenchmarkRow | NotRun]) -> list[tuple[str, float | None, bool]]:
    """Name, target and whether it is a ceiling, of rows that all have one measurement of plausible sign."""
    measured = [row for row in rows if isinstance(row, BenchmarkRow)]
    assert len(measured) == len(rows)
    for row in measured:
        assert all(pair.top > 0 for pair in row.pairs)
        assert row.measure is Measure.TOP or all(pair.bottom > 0 for pair in row.pairs)
    return [(row.benchmark, row.target, row.at_most) for row in measured]


def test_adapters_run_against_the_bare_foundation_and_a_head(setup: BenchmarkSetup) -> None:
    rows = [foundation_row(setup, 16), head_row(setup, 16)]
    assert targets(rows) == [("adapters-vs-bare", 0.9, False), ("adapters-vs-head", None, False)]


def test_compositions_run_against_adapters_of_as_many_ranks(setup: BenchmarkSetup) -> None:
    assert targets(compositions(setup)) == [("compositions", 0.97, False)]


@pytest.mark.slow
def test_shared_layers_run(setup: BenchmarkSetup) -> None:
    rows = [top_row(setup, 16), unshared_row(setup, 16)]
    assert targets(rows) == [("shared-layers", 4.0, False), ("shared-layers", 2.2, False)]
    assert "layers 5 and 6" in rows[0].title


def test_shared_layers_count_no_wrong_answer(setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRunner.run

    def swapped(self: OnnxRunner, batch: object) -> list[np.ndarray]:
        answers = run(self, batch)  # type: ignore[arg-type]
        return answers[::-1] if len(batch.lengths) == 1 < len(answers) else answers  # type: ignore[attr-defined]

    monkeypatch.setattr(OnnxRunner, "run", swapped)
    with pytest.raises(Disagreement, match="shared against unshared"):
        unshared_row(setup, 16)


def test_cold_starts_run(setup: BenchmarkSetup) -> None:
    rows = cold_rows(setup, 2)
    assert targets(rows) == [("cold-start", 25.0, True), ("cold-start", 2.0, True)]
    assert [len(row.pairs) for row in rows] == [2, 2]


def test_a_cold_start_refuses_an_adapter_that_is_warm(
    setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootstock.loadtest.engine.cold_start._ONE_SLOT", 256)
    with pytest.raises(Disagreement, match="is in the slot before its first call"):
        cold_rows(setup, 2)


def test_repeated_loads_come_from_the_store(setup: BenchmarkSetup) -> None:
    row = loads_row(setup, 24)
    assert targets([row]) == [("repeated-loads", None, False)]
    assert len(row.extra["seconds"]) == 24
    assert row.top.startswith("loads 14 to 24")


def test_repeated_loads_refuse_a_load_from_memory(setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootstock.loadtest.engine.cold_start.EngineLimits", lambda cache_bytes: EngineLimits())
    with pytest.raises(Disagreement, match="not in the store"):
        loads_row(setup, 24)


def test_look_ups_run_and_count_no_wrong_one(tmp_path: Path, spec: FoundationSpec) -> None:
    names = register(tmp_path, spec, 3, say)
    row = look_up_row(tmp_path, digests_of(tmp_path, names), 2, say)
    assert targets([row]) == [("registry-scale", 1.0, True)]
    with pytest.raises(Disagreement, match="not wrong"):
        look_up_row(tmp_path, dict.fromkeys(names, "wrong"), 1, say)


def test_registry_scale_says_so_where_the_disk_is_too_small(setup: BenchmarkSetup) -> None:
    (row,) = registry_rows(setup, RegistryLoad(10**12, 1, 1))
    assert isinstance(row, NotRun)
    assert "GB free" in row.reason


def test_vs_peft_says_so_where_sentence_transformers_is_missing(
    setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    row = sentence_row(setup)
    assert isinstance(row, NotRun)
    assert "sentence-transformers is not installed" in row.reason


@pytest.mark.slow
def test_image_rows_run(setup: BenchmarkSetup, tmp_path: Path) -> None:
    files = make_media_foundation("dinov2", tmp_path / "model")
    export(files.folder, describe(files), tmp_path / "export")
    on_images = replace(setup, foundation=files.folder, export=tmp_path / "export")
    rows = [*bare_rows(on_images), *image_peft_rows(on_images), *image_heads_rows(on_images)]
    assert targets(rows) == [
        ("images-vs-bare", 0.95, False), ("images-vs-peft", 1.5, False), ("images-vs-peft", None, False),
        ("images-fan-out", 12.0, False),
    ]  # fmt: skip


def test_image_rows_say_so_where_the_foundation_is_missing(
    setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise FoundationError("install it")

    monkeypatch.setattr("rootstock.loadtest.fixtures.images.locate", missing)
    (row,) = images_vs_bare(setup)
    assert isinstance(row, NotRun)
    assert row.reason == "install it"


@pytest.mark.slow
def test_a_plain_export_runs(setup: BenchmarkSetup) -> None:
    assert targets(plain_export(setup)) == [("plain-export", 1.0, False)] * 3


@pytest.mark.slow
def test_vs_peft_runs(setup: BenchmarkSetup) -> None:
    assert targets(peft_rows(setup)) == [("vs-peft", 2.0, False), ("vs-peft", None, False)]
    assert targets([sentence_row(setup)]) == [("vs-peft", None, False)]


@pytest.mark.slow
def test_registry_scale_runs(setup: BenchmarkSetup) -> None:
    rows = registry_rows(setup, RegistryLoad(20, 30, 1))
    # 128 MiB of cache in MB, and 50.
    memory = pytest.approx(134.2 + 50, abs=0.1)
    assert targets(rows) == [("registry-scale", memory, True), ("registry-scale", 1.0, True)]


@pytest.mark.slow
def test_startup_runs(setup: BenchmarkSetup) -> None:
    assert targets(start_rows(setup, 1)) == [("startup", target, True) for target in (3.0, 3.0, 400.0, 400.0)]


def test_sides_of_a_bench_are_what_they_say(setup: BenchmarkSetup) -> None:
    bench: Bench = open_bench(setup.export, 8, 1, adapters=3)
    assert bench.mixed(shift=1).slots == (2, 3, 1)
    assert bench.under(0, 2).slots == (0, 0)
    assert bench.of_one_input().inputs == (0, 0, 0)
    assert len(bench.mixed().lengths) == 3


def test_a_length_is_the_caller_s_or_that_of_the_run_s_size(setup: BenchmarkSetup) -> None:
    assert (setup.length(60, 2), replace(setup, quick=False).length(60, 2)) == (2, 60)
    assert replace(setup, seconds=7).length(60, 2) == 7
    assert (setup.count(30, 2), replace(setup, quick=False).count(30, 2)) == (2, 30)

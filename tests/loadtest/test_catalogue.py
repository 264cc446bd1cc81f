"""One catalogue names every benchmark, and a benchmark is measured under its name."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.loadtest import catalogue, targets
from rootstock.loadtest.catalogue import CATALOGUE, Benchmark, Command, measure, names_of
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rootstock.adapters.cli.console", "bench", *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("benchmark", CATALOGUE.values(), ids=CATALOGUE)
def test_a_benchmark_has_a_sentence_and_a_function(benchmark: Benchmark) -> None:
    assert benchmark.sentence
    function = benchmark.load()
    assert inspect.isfunction(function)
    first = next(iter(inspect.signature(function).parameters.values()), None)
    assert first is None if benchmark.command is Command.GPU else first.annotation == "BenchmarkSetup"


@pytest.mark.parametrize("benchmark", CATALOGUE.values(), ids=CATALOGUE)
def test_a_benchmark_s_rows_carry_its_name(benchmark: Benchmark) -> None:
    source = inspect.getsource(sys.modules[benchmark.load().__module__])
    assert f'"{benchmark.name}"' in source or benchmark.name == "sweep"


def test_every_target_is_judged_by_a_benchmark_and_printed_by_the_catalogue() -> None:
    modules = "".join(path.read_text() for path in (ROOT / "loadtest").glob("*/*.py"))
    printed = inspect.getsource(catalogue)
    names = [name for name in vars(targets) if name.isupper()]
    assert [name for name in names if f"targets.{name}" not in modules] == []
    parts = {"CACHE_MIB", "CACHE_MB", "SPARE_MB"}
    assert {name for name in names if f"targets.{name}" not in printed} == parts


def test_the_list_shows_every_benchmark_with_its_target() -> None:
    shown = bench("list")
    for benchmark in CATALOGUE.values():
        assert f"  {benchmark.name} " in shown
        assert benchmark.sentence in shown
        assert benchmark.target in shown
    assert bench() == shown


def test_names_belong_to_one_command_and_come_in_the_catalogue_s_order() -> None:
    assert [name for command in Command for name in names_of(command)] == list(CATALOGUE)
    assert CATALOGUE["ramp"].command_line == "rootstock bench http --scenario ramp"


def test_several_benchmarks_give_their_rows_in_turn(
    setup: BenchmarkSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(self: Benchmark, setup: BenchmarkSetup) -> Outcome:
        return Outcome([NotRun(self.name, "a", setup.server)])

    monkeypatch.setattr(Benchmark, "measure", rows)
    outcome = measure(["startup", "fan-out"], setup)
    assert [row.benchmark for row in outcome.rows] == ["startup", "fan-out"]
    assert not any(isinstance(row, BenchmarkRow) for row in outcome.rows)


def test_the_list_imports_no_engine_and_no_server() -> None:
    program = (
        "import sys; from rootstock.loadtest.cli import list_benchmarks; list_benchmarks(); "
        "assert not {'torch', 'onnxruntime', 'bentoml', 'locust', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)

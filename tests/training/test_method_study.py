"""The study of methods: every draw is measured once, and its table says how often `auto` was worth it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rootstock.training.cli.app import app
from rootstock.training.data.example import Example
from rootstock.training.errors import TrainingError
from rootstock.training.study.methods.method_study import markdown
from rootstock.training.study.methods.setfit_peer import run_setfit

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def record(draw: int, head: float, auto: float) -> dict[str, object]:
    sides = {"head_only": head, "auto": auto}
    timed = {name: {"score": score, "processor_seconds": 90.0} for name, score in sides.items()}
    return {"set": "intents", "rows": 8, "draw": draw, **timed, "auto": {**timed["auto"], "kept": "lora"}}


def test_the_table_has_mean_spread_minutes_and_wins_of_a_set() -> None:
    lines = markdown([record(0, 0.80, 0.82), record(1, 0.84, 0.84), record(2, 0.82, 0.80)]).splitlines()
    columns, _, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    row = dict(zip(columns, cells, strict=True))
    assert row["head_only"] == row["auto"].replace("82.0 ± 2.0", row["head_only"]) == "82.0 ± 2.0"
    assert row["auto processor minutes"] == "1.5"
    assert row["wins"] == "1 1 1"
    assert (row["set"], row["rows"], row["draws"]) == ("intents", "8", "3")


@pytest.mark.usefixtures("rows")
def test_a_repeated_study_measures_only_what_its_file_lacks(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = write_recipe(data={"splits": {"test_size": 0.25, "val_size": 0.25}}), tmp_path / "study.jsonl"
    command = ["study", str(recipe), "--rows", "4", "--out", str(out)]
    first = CliRunner().invoke(app, [*command, "--draws", "1"])
    assert first.exit_code == 0, first.output
    before = out.read_text(encoding="utf-8")
    measured = json.loads(before)
    assert (measured["rows"], measured["draw"], measured["train"], measured["test"]) == (4, 0, 8, 10)
    assert measured["auto"]["expected"]["rows"] == 8
    again = CliRunner().invoke(app, [*command, "--draws", "2", "--json"])
    assert out.read_text(encoding="utf-8").startswith(before)
    assert [one["draw"] for one in json.loads(again.stdout)["records"]] == [0, 1]


@pytest.mark.parametrize(
    ("python", "message"),
    [(sys.executable, "No module named 'setfit'"), ("/nowhere/python", "cannot be run: No such file")],
)
def test_a_python_without_setfit_is_named_with_the_remedy(python: str, message: str, tmp_path: Path) -> None:
    rows = [Example(labels=("a",), line=1, text="one"), Example(labels=("b",), line=2, text="two")]
    with pytest.raises(TrainingError, match=f"--setfit-python {python}.*{message}"):
        run_setfit(Path(python), tmp_path, rows, rows, ("a", "b"), tmp_path)


def test_a_python_in_a_folder_below_runs_from_there_and_reads_the_foundation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # It answers right if it runs from the environment, as a link there, and finds the foundation.
    program = (
        f"#!{sys.executable}\nimport json, os, sys\njob = json.load(sys.stdin)\n"
        "right = 'setfit-env' in __file__ and os.path.isdir(job['model'])\n"
        "print(json.dumps({'answers': [1 - right, right], 'seconds': 1, 'processor_seconds': 1}))\n"
    )
    Path("real-python").write_text(program, encoding="utf-8")
    Path("real-python").chmod(0o755)
    for folder in ("setfit-env/bin", "foundation", "results"):
        Path(folder).mkdir(parents=True)
    Path("setfit-env/bin/python").symlink_to(tmp_path / "real-python")
    rows = [Example(labels=("a",), line=1, text="one"), Example(labels=("b",), line=2, text="two")]
    python, foundation, folder = Path("setfit-env/bin/python"), Path("foundation"), Path("results")
    assert run_setfit(python, foundation, rows, rows, ("a", "b"), folder).accuracy == 1


@pytest.mark.parametrize("command", ["study", "bench"])
@pytest.mark.parametrize(
    ("python", "data", "message"),
    [
        ("setfit-env/bin/python", {}, "--setfit-python setfit-env/bin/python: cannot be run: No such file"),
        (sys.executable, {"pair_column": "second"}, "data.pair_column: SetFit reads one text a row"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_the_rows_are_read(
    write_recipe: Callable[..., Path], command: str, python: str, data: dict[str, str], message: str
) -> None:
    # The file of rows does not exist, so a command that read it first would name that.
    result = CliRunner().invoke(app, [command, str(write_recipe(data=data)), "--setfit-python", python])
    assert result.exit_code != 0
    assert message in result.stderr

"""The kept runs: JSON alone, readable, by benchmarks of the catalogue, and each can be rendered."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rootstock.loadtest.catalogue import CATALOGUE
from rootstock.loadtest.engine.sweep import SweepRun
from rootstock.loadtest.measure.outcome import write_json
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.loadtest.report.markdown import markdown_table
from rootstock.loadtest.report.render import RESULTS, NoRun, read_run, render

FILES = sorted(RESULTS.rglob("*.json"))


def names_in(path: Path) -> set[str]:
    run = read_run(path)
    return {"sweep"} if isinstance(run, SweepRun) else {row.benchmark for row in run.outcome.rows}


def test_the_folder_holds_figures_alone() -> None:
    assert FILES
    assert [path.name for path in RESULTS.rglob("*") if path.is_file() and path.suffix != ".json"] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_holds_what_its_name_says(path: Path) -> None:
    content = json.loads(path.read_text())
    names = names_in(path)
    assert names <= set(CATALOGUE)
    if path.stem.startswith("scenario-"):
        assert names == {path.stem.removeprefix("scenario-")} == {content["parameters"]["scenario"]}
    elif path.stem != "sweep":
        assert names == set(content["parameters"]["benchmarks"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_medians_and_intervals_are_those_of_its_pairs(path: Path) -> None:
    content, run = json.loads(path.read_text()), read_run(path)
    assert run.to_json() == content
    if not isinstance(run, SweepRun):
        assert all(isinstance(row, BenchmarkRow) for row in run.outcome.rows)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_rendered(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    content = json.loads(path.read_text())
    # Rows are alike, and each picture takes a while: three of a file are enough.
    content["rows"] = content.get("rows", [])[:3]
    short = tmp_path / path.name
    write_json(short, content)
    run, files = read_run(short), {file.suffix: file for file in render(short, tmp_path / "new")}
    assert sorted(files.values()) == sorted((tmp_path / "new").iterdir())
    if isinstance(run, SweepRun):
        assert set(files) == {".png"}
        assert files[".png"].read_bytes().startswith(b"\x89PNG")
        return
    page = files[".html"].read_text()
    assert all(row.title in page.replace("&#39;", "'") for row in run.outcome.rows)
    pictures = [row for row in run.outcome.measured_rows if not row.exact]
    assert page.count("<svg") >= len(pictures)
    assert not any(outside in page for outside in ('src="http', "<script", "@import", "<link"))
    assert (".png" in files) == bool(pictures)
    assert (".csv" in files) == bool(run.outcome.timeline)
    if ".csv" in files:
        with files[".csv"].open() as file:
            assert len(list(csv.DictReader(file))) == len(run.outcome.timeline)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": 1}', '{"points": [{}]}', '{"rows": [], "machine": {}}']
)
def test_a_file_that_is_no_run_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NoRun, match=r"other\.json holds no run"):
        render(path, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match=r"missing\.json cannot be read: No such file"):
        render(tmp_path / "missing.json", tmp_path)


def test_a_page_without_matplotlib_says_how_to_get_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("page", "render"):
        monkeypatch.setattr(f"rootstock.loadtest.report.{module}.can_draw", lambda: False)
    assert [file.suffix for file in render(RESULTS / "scenario-ramp.json", tmp_path)] == [".html", ".csv"]
    assert "pip install &#39;rootstock[dev]&#39;" not in (page := (tmp_path / "scenario-ramp.html").read_text())
    assert "rootstock[dev]" in page
    assert "<svg" not in page
    assert render(RESULTS / "sweep.json", tmp_path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_figures_in_the_docs_are_those_of_the_files(path: Path) -> None:
    text = (RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()
    run = read_run(path)
    assert f"`{path.name}`" in text
    assert f"commit {run.machine['commit'][:7]}" in text
    assert markdown_table(run) in text


def test_the_docs_name_every_target_that_is_not_met() -> None:
    text = (RESULTS.parents[1] / "docs" / "benchmarks.md").read_text()
    unmet = text.partition("## Not met")[2].partition("\n## ")[0]
    runs = [run for path in FILES if not isinstance(run := read_run(path), SweepRun)]
    names = {row.benchmark for run in runs for row in run.outcome.measured_rows if row.met is False}
    assert names
    assert all(f"| `{name}` |" in unmet for name in names)

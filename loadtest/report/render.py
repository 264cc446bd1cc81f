"""The pages, pictures and tables of kept runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.loadtest.engine.sweep import SweepRun
from rootstock.loadtest.load.timeline import write_csv
from rootstock.loadtest.measure.machine import ROOT
from rootstock.loadtest.measure.outcome import BenchmarkRun
from rootstock.loadtest.report.chart import can_draw, draw
from rootstock.loadtest.report.page import write_page
from rootstock.loadtest.report.sweep_chart import draw_sweep

RESULTS = ROOT / "loadtest" / "results"


class NoRun(Exception):
    """A file that cannot be read, or that holds no run of a benchmark."""


def render(path: Path, folder: Path) -> list[Path]:
    """Write the page, the picture and the timeline of the run in `path` into `folder`. Return the files.

    A sweep gives a picture alone, and only a scenario gives a timeline. Without matplotlib there is no picture.
    Raise NoRun if `path` holds no run.
    """
    run = read_run(path)
    folder.mkdir(parents=True, exist_ok=True)
    page, picture, timeline = (folder / f"{path.stem}.{kind}" for kind in ("html", "png", "csv"))
    if isinstance(run, SweepRun):
        if not can_draw():
            return []
        draw_sweep(run, picture)
        return [picture]
    files = [page]
    write_page(page, title_of(run.parameters), run)
    if run.outcome.timeline:
        write_csv(timeline, run.outcome.timeline)
        files.append(timeline)
    rows = [row for row in run.outcome.measured_rows if not row.exact]
    if rows and can_draw():
        draw(rows, picture)
        files.append(picture)
    return files


def read_run(path: Path) -> BenchmarkRun | SweepRun:
    """Return the run in a JSON file. Raise NoRun if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SweepRun.from_json(content) if "points" in content else BenchmarkRun.from_json(content)
    except OSError as error:
        raise NoRun(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise NoRun(f"{path} holds no run of 'rootstock bench' ({type(error).__name__}: {error})") from None


def title_of(parameters: Mapping[str, Any]) -> str:
    """Return a page's title from the run's parameters."""
    if "scenario" in parameters:
        return f"Rootstock under load: {parameters['scenario']}"
    return "Rootstock's benchmarks: " + ", ".join(parameters["benchmarks"])

"""Plots: which are drawn, that they are pictures, and that nothing global is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from rootstock.training.errors import MissingExtra
from rootstock.training.report.plots import draw
from tests.training.example_metrics import example_entity_metrics, example_metrics


def test_every_section_with_figures_has_its_plot(tmp_path: Path) -> None:
    written = draw(example_metrics(), tmp_path / "plots")
    assert list(written) == ["labels", "confusion", "calibration", "epochs", "learning_curve", "seeds"]
    for path in written.values():
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors() or [0] * 9) > 8


def test_a_section_without_figures_has_no_plot(tmp_path: Path) -> None:
    assert list(draw(example_entity_metrics(), tmp_path)) == ["labels"]
    assert [path.name for path in tmp_path.iterdir()] == ["labels.png"]


def test_names_that_look_like_mathematics_or_lack_a_glyph_are_drawn_as_they_are(tmp_path: Path) -> None:
    metrics = example_entity_metrics()
    groups = metrics["test"]["adapter"]["entities"]
    metrics["test"]["adapter"]["entities"] = {"$x^$": groups["person"], "人名": groups["person"]}
    metrics["labels"], metrics["test"]["confusion"] = ["$x^$", "人名"], [[3, 1], [0, 2]]
    assert list(draw(metrics, tmp_path)) == ["labels", "confusion"]


def test_many_labels_are_drawn_without_numbers_in_their_cells(tmp_path: Path) -> None:
    metrics = example_entity_metrics()
    metrics["labels"] = [f"label {i}" for i in range(150)]
    metrics["test"]["confusion"] = [[int(i == j) for i in range(150)] for j in range(150)]
    with Image.open(draw(metrics, tmp_path)["confusion"]) as image:
        assert max(image.size) < 4000


def test_plots_leave_pyplot_without_a_figure(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    draw(example_entity_metrics(), tmp_path)
    assert pyplot.get_fignums() == before


def test_without_matplotlib_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"plots need matplotlib.*: pip install 'rootstock\[train\]'"):
        draw(example_metrics(), tmp_path)


def test_the_axis_of_the_learning_curve_names_the_rows_that_it_was_scored_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    labels: dict[str, str] = {}

    def keep(figure: Figure, path: Path, **_: object) -> None:
        labels[path.name] = figure.axes[0].get_ylabel()

    monkeypatch.setattr(Figure, "savefig", keep)
    draw(example_metrics(), tmp_path)
    assert labels["learning_curve.png"] == "score on test rows, %"

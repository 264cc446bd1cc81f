"""The cost of a run: all its time, also that of processes that were killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.training import cost
from rootstock.training.cost import RunClock
from rootstock.training.fit.descent import silent
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.run import run


class _Watch:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def _clock(folder: Path, watch: _Watch, key: str = "one") -> RunClock:
    return RunClock(folder, key, watch(), watch)


def test_the_time_of_killed_processes_counts_and_that_of_another_run_does_not(tmp_path: Path) -> None:
    watch = _Watch()
    for expected, processes in ((60.0, None), (120.0, 2), (180.0, 3)):
        clock = _clock(tmp_path / "resume", watch)
        step = clock.keeping(silent)
        watch.time += 60
        step(1, 2, "epoch 1")
        stated = clock.to_json()
        assert (stated["seconds"], stated.get("processes")) == (expected, processes)
        # The process is killed here, and its last seconds after a step are lost.
        watch.time += 7
    assert _clock(tmp_path / "resume", watch, "other").to_json()["seconds"] == 0
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["cost.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "one"}', '{"key": "one", "seconds": "x"}', "\xff"])
def test_a_file_that_is_damaged_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "cost.json").write_bytes(content.encode("latin-1"))
    assert _clock(tmp_path, _Watch()).to_json()["seconds"] == 0


@pytest.mark.usefixtures("rows")
def test_a_run_that_was_killed_and_resumed_states_its_processes_and_the_time_of_both(
    write_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_PAUSE", 0.0)
    source, out = load_recipe(write_recipe()), tmp_path / "out"

    def interrupt(done: int, total: int, note: str, rate: float = 0.0) -> None:
        if "epoch 2" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, out, interrupt, force=True)
    kept = json.loads((out / ".resume" / "cost.json").read_text(encoding="utf-8"))
    kept["seconds"] += 3600
    (out / ".resume" / "cost.json").write_text(json.dumps(kept), encoding="utf-8")
    stated = run(source, out, force=True).metrics["cost"]
    assert stated["seconds"] > 3600
    assert stated["processes"] == 2
    assert "in 2 processes: it was resumed" in (out / "report.md").read_text(encoding="utf-8")
    assert not (out / ".resume").exists()
    assert "processes" not in run(source, out, force=True).metrics["cost"]

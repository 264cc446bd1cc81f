"""The engine's own process answers as a batch of one would, counts what it finished, and its end is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.loadtest.fixtures.engine_process import EngineEnded, engine_process
from rootstock.loadtest.measure.processes import cpu_seconds


def test_it_answers_counts_and_uses_cpu_time(export_folder: Path) -> None:
    with engine_process(export_folder, threads=1, adapters=3, tokens=8) as engine:
        answers = engine.answers()
        assert len({answer["digest"] for answer in answers}) == 3
        for answer in answers:
            assert sum(one["score"] for one in answer["scores"]) == pytest.approx(1, abs=1e-5)
        assert engine.load(clients=2, seconds=0.5) > 0
        assert engine.answers() == answers
        used = cpu_seconds(engine.pid)
        assert used is None or used > 0


def test_an_engine_that_ended_is_one_clear_error(tmp_path: Path) -> None:
    with (
        engine_process(tmp_path, threads=1, adapters=1, tokens=8) as engine,
        pytest.raises(EngineEnded, match="code 1"),
    ):
        engine.answers()

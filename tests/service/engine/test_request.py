"""A request's progress is a state machine: it goes forward once, and nobody computes what was left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.engine.core.request import Progress, State

ORDER = [State.ADMITTED, State.PREPARED, State.RUNNING, State.COMPUTED]
OUTPUT = np.zeros(2, np.float32)


def samples(rows: int) -> list[list[SimpleNamespace]]:
    return [[SimpleNamespace(cost=3)] for _ in range(rows)]


def test_a_request_is_admitted_prepared_run_and_computed() -> None:
    progress = Progress(ready=1.0)
    progress.time_preparation(2.0, 3.0)
    progress.prepare(samples(2))
    assert (progress.state, progress.cost) == (State.PREPARED, 6)
    assert progress.start(4.0)
    assert not progress.start(5.0), "only the first batch starts it"
    assert not progress.record(1, OUTPUT, 6.0)
    assert progress.state is State.RUNNING
    assert progress.record(0, OUTPUT, 7.0)
    assert (progress.state, progress.started, progress.finished) == (State.COMPUTED, 4.0, 7.0)


def test_a_request_that_nobody_waits_for_takes_no_output() -> None:
    progress = Progress()
    progress.prepare(samples(1))
    progress.leave()
    progress.start(1.0)
    assert not progress.record(0, OUTPUT, 2.0)
    assert (progress.state, progress.outputs) == (State.LEFT, [None])


def test_a_request_is_prepared_once() -> None:
    progress = Progress()
    progress.prepare(samples(1))
    with pytest.raises(ValueError, match="is prepared"):
        progress.prepare(samples(1))


@given(st.lists(st.sampled_from(["prepare", "start", "record", "leave"]), max_size=12))
def test_in_whatever_order_its_steps_come_a_state_never_goes_back(steps: list[str]) -> None:
    progress, rows = Progress(), 0
    for step in steps:
        before = progress.state
        if step == "prepare" and before in (State.ADMITTED, State.LEFT) and not progress.samples:
            progress.prepare(samples(2))
        elif step == "start" and progress.samples:
            progress.start(1.0)
        elif step == "record" and progress.started is not None and rows < 2:
            progress.record(rows, OUTPUT, 2.0)
            rows += before is not State.LEFT
        elif step == "leave":
            progress.leave()
        if before in (State.LEFT, State.COMPUTED):
            assert progress.state is before, "both are final"
        elif progress.state is not State.LEFT:
            assert ORDER.index(progress.state) >= ORDER.index(before)
        assert (progress.finished is not None) == (progress.state is State.COMPUTED)

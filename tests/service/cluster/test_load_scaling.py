"""The number of replicas follows the requests under way, the time that they wait and the time of batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rootstock.service.cluster.load_scaling import ReplicaLoad, replicas_by_load
from rootstock.service.engine.core.observer import BatchStats
from rootstock.service.telemetry.metrics import Metrics


def context(requests: float, **measured: tuple[float, float]) -> Any:
    """Return what Serve tells of two replicas that should have ten requests under way each."""
    return SimpleNamespace(
        total_num_requests=requests,
        aggregated_metrics={name: {"a": one, "b": other} for name, (one, other) in measured.items()},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 10.0),
    )


@pytest.mark.parametrize(
    ("requests", "queue", "busy", "replicas"),
    [
        (30.0, (0.0, 0.0), (0.0, 0.0), 3),
        (5.0, (10.0, 10.0), (0.7, 0.7), 5),
        (5.0, (0.0, 0.0), (1.0, 0.75), 2.5),
        (0.0, (0.0, 0.0), (0.0, 0.0), 0),
    ],
)
def test_the_measure_that_needs_the_most_replicas_decides(
    requests: float, queue: tuple[float, float], busy: tuple[float, float], replicas: float
) -> None:
    assert replicas_by_load(context(requests, queue=queue, busy=busy))[0] == pytest.approx(replicas)


def test_new_replicas_without_a_report_leave_the_requests_under_way() -> None:
    assert replicas_by_load(context(20.0))[0] == 2


def test_a_replica_reports_its_seconds_of_waiting_and_of_batches_for_each_second() -> None:
    now, metrics = [100.0], Metrics()
    load = ReplicaLoad(metrics.registry, lambda: now[0])
    metrics.batch(BatchStats(2, 1, 10, 10, 0.5, [("normal", 3.0), ("high", 1.0)]))
    now[0] += 2
    assert load.rates() == pytest.approx({"queue": 2.0, "busy": 0.25})
    now[0] += 2
    assert load.rates() == {"queue": 0.0, "busy": 0.0}
    assert load.rates() == {"queue": 0.0, "busy": 0.0}


def test_a_server_that_generates_text_reports_no_time_of_batches() -> None:
    metrics = Metrics()
    metrics._sequences.labels("chat").set(1)
    load = ReplicaLoad(metrics.registry)
    metrics.batch(BatchStats(1, 1, 1, 1, 0.5, [("normal", 0.0)]))
    assert list(load.rates()) == ["queue"]

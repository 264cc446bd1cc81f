"""The requests of the HTTP benchmarks: one sentence under each adapter of a workload."""

from __future__ import annotations

import json

from rootstock.loadtest.fixtures.workload import Workload

PREDICT = "/v1/predict"


def predict_bodies(workload: Workload) -> list[bytes]:
    """Return a body for each adapter, with its sentence."""
    return [
        json.dumps({"model": name, "inputs": text}).encode()
        for name, text in zip(workload.names, workload.sentences, strict=True)
    ]

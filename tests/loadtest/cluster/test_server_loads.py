"""The parts of a request are told apart by the loads that they come with."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import nnls

from rootstock.loadtest.cluster.costs import ClusterCosts
from rootstock.loadtest.cluster.live_cluster import REFERENCE_ROWS
from rootstock.loadtest.cluster.server_loads import LoadedWindow, ServerCosts, least_squares, server_costs
from rootstock.loadtest.cluster.window import WindowFigures

KNOWN = ClusterCosts({(1, 16): 0.005, (32, 16): 0.1}, slot=0.0005)
COSTS = ServerCosts(request=0.7, batch=1.5, client=0.1, load=4.0, pause=3.0, turn=0.05)


def window(
    rows: float, costs: ServerCosts, cold: float = 0.0, pause: float = 0.0, shared: bool = False
) -> LoadedWindow:
    """Return the window that a server with these costs has under batches of so many rows."""
    batch = 1e3 * KNOWN.pass_of(rows, 16) * (1 + costs.turn * shared) + costs.batch
    server = batch / rows + costs.request + costs.load * cold + costs.pause * pause + 1e3 * KNOWN.slot * 0.2
    # The machine is slower than it was for the known passes.
    slower = 1.1
    return LoadedWindow(
        WindowFigures(
            requests_s=100,
            p50_ms=10,
            p99_ms=20,
            failed=0,
            cold_per_request=cold,
            slot_loads_per_request=0.2,
            batches_per_request=1 / rows,
            server_cpu_ms=slower * server,
            client_cpu_ms=slower * costs.client,
            others_share=0,
            answers=400,
            spread=[1.0],
            pass_ms=slower * 1e3 * KNOWN.pass_of(REFERENCE_ROWS, 16),
        ),
        pause,
        shared,
    )


def test_the_costs_behind_some_loads_are_found_again() -> None:
    windows = [
        *(window(rows, COSTS) for rows in (1, 2, 8, 16)),
        *(window(1.2, COSTS, pause=pause) for pause in (0.2, 0.7)),
        *(window(rows, COSTS, shared=True) for rows in (2, 8)),
        *(window(rows, COSTS, cold=0.3) for rows in (4, 8)),
    ]
    assert asdict(server_costs(windows, KNOWN)) == pytest.approx(asdict(COSTS))


def test_a_part_below_nothing_is_left_out_of_the_fit() -> None:
    """The others are those of a fit without it, as scipy's nnls finds them."""
    columns = np.random.default_rng(0).random((12, 5))
    right = columns @ [0.7, 1.5, -1.0, 3.0, 0.1]
    found = least_squares(columns, right)
    assert found == pytest.approx(nnls(columns, right)[0])
    assert found[2] == 0

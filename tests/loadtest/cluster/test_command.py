"""The costs are read as they were measured, and the command compares policies on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rootstock.loadtest.cli import app
from rootstock.loadtest.cluster.calibration import cluster_costs
from rootstock.loadtest.cluster.costs import COSTS_FILE, ClusterCosts, costs_of, read_costs
from rootstock.loadtest.cluster.live_cluster import ReferencePass, adapter_home, live_cluster
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.measure.outcome import BenchmarkRun
from rootstock.loadtest.report.markdown import markdown_table
from rootstock.loadtest.report.render import read_run


def test_a_batch_costs_what_lies_on_the_line_between_the_measured_ones() -> None:
    costs = ClusterCosts({(1, 16): 0.1, (3, 16): 0.3, (1, 32): 0.2, (3, 32): 0.6}, batch=1.0)
    assert costs.batch_of(3, 16) == pytest.approx(1.3)
    assert costs.batch_of(2, 24) == pytest.approx(1.3)
    assert costs.batch_of(4, 16) == pytest.approx(1.4)
    assert costs.pass_of(2.5, 32) == pytest.approx(0.5)


def test_costs_at_another_speed_are_in_proportion() -> None:
    costs = ClusterCosts({(1, 16): 0.1, (3, 16): 0.3}, batch=1.0, request=2.0, turn=0.1).at_speed(0.4, 2, 16)
    assert (costs.pass_of(3, 16), costs.batch, costs.request, costs.turn) == pytest.approx((0.6, 2.0, 4.0, 0.1))


def test_the_kept_costs_grow_with_rows_and_with_tokens() -> None:
    costs = read_costs(COSTS_FILE)
    assert 0 < costs.pass_of(1, 16) < costs.pass_of(8, 16) < costs.pass_of(8, 64)
    assert costs.slowdown >= 1
    assert 0 <= costs.turn < 1
    assert min(costs.request, costs.load, costs.slot, costs.client) > 0


def test_the_command_compares_policies_by_phase(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    options = ["--policies", "random,rendezvous", "--replicas", "40", "--adapters", "5000", "--json", str(out)]
    done = CliRunner().invoke(app, ["cluster", "--quick", *options])
    assert done.exit_code == 0, done.output
    run = read_run(out)
    assert isinstance(run, BenchmarkRun)
    phases = [(stage["policy"], stage["phase"]) for stage in run.outcome.stages]
    names = ("steady", "failures", "deploy", "limit")
    assert phases == [(policy, name) for policy in ("random", "rendezvous") for name in names]
    assert run.parameters["simulated"]["replicas"] == 4
    assert markdown_table(run).count("\n") == 2 + len(phases) - 1


def test_wrong_options_and_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        done = CliRunner().invoke(app, ["cluster", *options])
        assert done.exit_code == 2
        return done.output

    other = tmp_path / "other.json"
    other.write_text(json.dumps({"rows": []}))
    assert "rootstock bench cluster --measure" in refused("--costs", str(other))
    assert "rootstock bench cluster --measure" in refused("--costs", str(tmp_path / "missing.json"))
    assert "choose from random, round-robin" in refused("--policies", "nearest")
    assert "give one of them" in refused("--measure", "--validate")


@pytest.mark.slow
def test_the_costs_of_a_real_replica_are_measured(setup: BenchmarkSetup) -> None:
    run = BenchmarkRun({}, {}, cluster_costs(setup))
    costs = costs_of(run)
    assert 0 < costs.pass_of(1, 16) < costs.pass_of(32, 64)
    assert min(costs.load, costs.client) > 0
    assert 0 <= costs.turn < 1


@pytest.mark.slow
def test_affinity_loads_each_adapter_into_one_real_replica(setup: BenchmarkSetup) -> None:
    reference = ReferencePass(setup.export)
    with adapter_home(setup, 6) as home, live_cluster(home, 2, {}, reference) as cluster:
        figures = cluster.load("rendezvous", warm=0, seconds=2, clients=4)
    assert figures.failed == 0
    # Those that come before the first look at the counters are not counted.
    assert figures.cold_per_request * figures.answers <= 6.5
    assert 0 < figures.p50_ms <= figures.p99_ms
    assert min(figures.server_cpu_ms, figures.pass_ms) > 0

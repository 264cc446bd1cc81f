"""The first errors of `rootstock deploy ray`: each says what is wrong and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rootstock.adapters import installation
from rootstock.service.cli import deploy as command

POSTGRES = "postgresql+psycopg://nobody:nothing@127.0.0.1:1/none"


def errors_of(*arguments: str) -> str:
    done = CliRunner().invoke(command.app, ["ray", *arguments])
    assert done.exit_code == 2
    return done.stderr


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ROOTSTOCK_HOME", str(tmp_path))
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.mark.parametrize("arguments", [["--replicas", "4"], ["--replicas", "1", "--max-replicas", "3"]])
def test_several_replicas_on_the_registry_of_one_home_are_refused(arguments: list[str], tmp_path: Path) -> None:
    said = errors_of(*arguments)
    for part in (str(tmp_path), "ROOTSTOCK_REGISTRY_URL", "ROOTSTOCK_STORE_URL", "--replicas 1"):
        assert part in said
    assert list(tmp_path.iterdir()) == []


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    assert "--max-replicas is 2, fewer than --replicas 3" in errors_of("--replicas", "3", "--max-replicas", "2")


def test_another_routing_than_the_two_is_refused() -> None:
    assert "give adapter or random" in errors_of("--routing", "fast")


def test_replicas_that_strangers_could_use_are_refused() -> None:
    assert "ROOTSTOCK_ADMIN_KEY" in errors_of("--replicas", "1", "--host", "0.0.0.0")


def test_a_setting_that_the_server_refuses_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_REGISTRY_URL", POSTGRES)
    assert "ROOTSTOCK_STORE_URL" in errors_of()


def test_several_processes_of_a_replica_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setenv("ROOTSTOCK_PROCESSES", "2")
    assert "a replica on Ray is one process; unset it, and give more --replicas" in errors_of()


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installation.find_spec
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "ray" else found(name))
    said = installation.lack("ray", "`rootstock deploy`")
    assert said == "`rootstock deploy` needs ray, which is not installed; run: pip install 'rootstock[ray]'"


# Ray's own code, as it is imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("cores", "listens", "runs", "said"),
    [
        (4.9, ("127.0.0.1", 3000), False, "need 5 cores.*has 4.9.*ray start"),
        (5, ("127.0.0.1", 3000), False, None),
        (6, ("127.0.0.1", 3000), True, "need 7 cores.*has 6"),
        (7, ("127.0.0.1", 3000), True, None),
        (9, ("0.0.0.0", 3000), False, r"listens on 0.0.0.0:3000, and not on 127.0.0.1:3000; give --host"),
        (9, ("127.0.0.1", 8000), False, "listens on 127.0.0.1:8000"),
    ],
)
def test_a_cluster_that_is_too_small_or_listens_elsewhere_is_refused(
    cores: float, listens: tuple[str, int], runs: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray import serve
    from ray.serve import context

    from rootstock.service.cluster.application import ClusterPlan
    from rootstock.service.cluster.deployment import DeploymentFailed, deploy

    part = SimpleNamespace(replica_states={"RUNNING": 2})
    applications = {"rootstock": SimpleNamespace(deployments={"replica": part})} if runs else {}
    listener = SimpleNamespace(http_config=SimpleNamespace(host=listens[0], port=listens[1]))
    for place, name, value in (
        (ray, "init", None),
        (ray, "shutdown", None),
        (ray, "cluster_resources", {"CPU": cores}),
        (serve, "start", None),
        (serve, "status", SimpleNamespace(applications=applications)),
        (context, "_get_global_client", listener),
    ):
        monkeypatch.setattr(place, name, lambda *_, value=value, **__: value)

    def run(*_: object, **__: object) -> None:
        raise ValueError("the application is run")

    monkeypatch.setattr(serve, "run", run)
    plan = ClusterPlan(replicas=2, cpus=2, ingresses=1)
    with pytest.raises(DeploymentFailed, match=said or "the application is run"):
        deploy(plan, "auto", "rootstock", "/", "127.0.0.1", 3000)

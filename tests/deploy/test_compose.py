"""deploy/compose.yaml: by the compose specification's schema, and by the server that it starts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from rootstock.service.settings import PREFIX, Settings, SettingsError
from tests.deploy.conftest import ROOT
from tests.deploy.settings import read

DEPLOY = ROOT / "deploy"
FILES = sorted(path.name for path in DEPLOY.glob("compose*.yaml"))


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def keys(example: str) -> dict[str, str]:
    lines = (DEPLOY / example).read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("name", FILES)
def test_a_compose_file_is_valid_by_the_specification_s_schema(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_service_runs_without_privileges_on_a_read_only_root() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_no_service_can_take_all_memory_or_all_processes_of_the_machine() -> None:
    services = compose()["services"]
    assert all(service["pids_limit"] > 0 for service in services.values())
    units = {"m": 2**20, "g": 2**30}
    limits = {name: int(s["mem_limit"][:-1]) * units[s["mem_limit"][-1]] for name, s in services.items()}
    assert sum(limits.values()) < 5 * 2**30
    manifest = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "deployment.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == f"{limits['rootstock'] // 2**30}Gi"


def test_only_named_volumes_are_writable_and_the_server_has_one() -> None:
    content = compose()
    for name, service in content["services"].items():
        writable = [v.split(":")[0] for v in service["volumes"] if not v.endswith(":ro")]
        assert writable == [name]
        assert name in content["volumes"]
    assert content["services"]["rootstock"]["volumes"] == ["rootstock:/data"]


def test_the_stop_s_grace_covers_the_drain_and_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    service = compose()["services"]["rootstock"]
    settings = read(service.get("environment", {}), monkeypatch)
    image_s_drain_delay = 5
    assert seconds(service["stop_grace_period"]) > settings.grace_period + image_s_drain_delay


def test_nothing_is_published_beyond_loopback() -> None:
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_server_refuses_the_keys_of_the_example_until_they_are_filled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compose()["services"]["rootstock"]["env_file"] == "keys.env"
    example = keys("keys.env.example")
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert example.keys() <= known
    with pytest.raises(SettingsError, match="ROOTSTOCK_ADMIN_KEY"):
        read(example, monkeypatch)
    filled = read(dict.fromkeys(example, "k" * 16), monkeypatch)
    assert filled.admin_key is not None

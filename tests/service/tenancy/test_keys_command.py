"""`rootstock keys` does the same on a home without a server and on a server over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.errors import InvalidKey
from rootstock.service.cli.durations import length_of_time, point_of_time
from rootstock.service.cli.keys import app
from rootstock.service.settings import Settings
from tests.live_server import OWNER, RunningServer, run_server

NOW = datetime(2030, 1, 1, tzinfo=UTC)
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path]) -> Iterator[RunningServer]:
    settings = Settings(home=new_home(), demo=False, log_level="error", admin_key=OWNER)
    with run_server(settings) as running:
        yield running


@pytest.fixture(params=["home", "server"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command on a home, or on a server."""
    for name in ("ROOTSTOCK_URL", "ROOTSTOCK_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    place = ["--home", str(tmp_path)]
    if request.param == "server":
        place = ["--url", request.getfixturevalue("server").url, "--key", OWNER]
    return lambda *arguments: CliRunner().invoke(app, [*arguments, *place])


def created(run: Run, *arguments: str) -> dict[str, Any]:
    done = run("create", *arguments, "--json")
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def listed(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    done = run("list", "--json", *arguments)
    assert done.exit_code == 0, done.output
    return {key["id"]: key for key in json.loads(done.stdout)["keys"]}


def test_a_new_key_is_alone_on_stdout_and_never_shown_again(run: Run) -> None:
    done = run("create", "--tenant", "acme", "--role", "predict", "--expires", "90d", "--label", "web shop")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"rsk_[0-9a-f]{16}_[0-9a-f]{64}\n", done.stdout)
    _, id, secret = done.stdout.strip().split("_")
    assert "it is not shown again" in done.stderr
    assert secret not in done.stderr
    for shown in (run("list").output, run("list", "--json").output):
        assert id in shown
        assert secret not in shown
    key = listed(run)[id]
    assert (key["tenant"], key["role"], key["label"], key["state"]) == ("acme", "predict", "web shop", "good")
    ends = datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])
    assert abs(ends - timedelta(days=90)) < timedelta(minutes=5)


def test_a_key_has_the_quotas_that_were_set_with_it(run: Run) -> None:
    limits = ["--requests-per-minute", "5", "--tokens-per-minute", "600", "--stored-mb", "7"]
    key = created(run, "--role", "publish", *limits)
    assert (key["requests_per_minute"], key["tokens_per_minute"], key["stored_mb"]) == (5, 600, 7)
    assert listed(run)[key["id"]]["tokens_per_minute"] == 600


def test_a_rotation_makes_a_key_alike_and_lets_the_old_one_end(run: Run) -> None:
    old = created(run, "--tenant", "acme", "--role", "publish")
    done = run("rotate", old["id"], "--overlap", "2h", "--json")
    assert done.exit_code == 0, done.output
    new = json.loads(done.stdout)
    assert (new["tenant"], new["role"]) == ("acme", "publish")
    assert new["key"] != old["key"]
    ends = datetime.fromisoformat(listed(run)[old["id"]]["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=5)
    assert run("rotate", new["id"], "--overlap", "0s").exit_code == 0
    assert listed(run)[new["id"]]["state"] == "expired"


def test_a_revoked_key_is_listed_as_revoked_and_cannot_be_rotated(run: Run) -> None:
    key = created(run, "--role", "predict")
    assert run("revoke", key["id"]).exit_code == 0
    assert listed(run)[key["id"]]["state"] == "revoked"
    done = run("rotate", key["id"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rootstock keys: the key {key['id']} is revoked, so it cannot be rotated")


def test_the_list_of_one_tenant_holds_its_keys_alone(run: Run) -> None:
    one, other = created(run, "--tenant", "a1", "--role", "predict"), created(run, "--role", "predict")
    assert one["id"] in listed(run, "--tenant", "a1")
    assert other["id"] not in listed(run, "--tenant", "a1")
    assert other["id"] in listed(run)


def test_a_tenant_s_quota_is_shown_set_and_removed(run: Run) -> None:
    assert "no limits" in run("quota", "quiet").stdout
    assert run("quota", "busy", "--requests-per-minute", "6000", "--stored-mb", "10").exit_code == 0
    shown = json.loads(run("quota", "busy", "--json").stdout)
    limits = {"requests_per_minute": 6000, "tokens_per_minute": None, "stored_mb": 10}
    assert shown == {"tenant": "busy", **limits, "stored_bytes": 0}
    assert run("quota", "busy", "--no-limit").stdout == "busy: no limits; 0 bytes stored\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--role", "root"],
        ["create", "--role", "predict", "--tenant", "Acme"],
        ["create", "--role", "predict", "--expires", "soon"],
        ["create", "--role", "predict", "--expires", "2020-01-01"],
        ["create", "--role", "predict", "--label", "x" * 300],
        ["create"],
        ["rotate", "0" * 16, "--overlap", "a while"],
        ["rotate", "0" * 16],
        ["revoke", "../v1"],
        ["quota", "No!"],
        ["quota", "acme", "--stored-mb", "0"],
        ["quota", "acme", "--stored-mb", "1", "--no-limit"],
    ],
)
def test_wrong_usage_is_one_clear_line_and_changes_nothing(run: Run, arguments: list[str]) -> None:
    before = listed(run)
    done = run(*arguments)
    assert done.exit_code in (1, 2), done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert listed(run) == before


def test_a_server_that_needs_a_key_says_so(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOTSTOCK_ADMIN_KEY", raising=False)
    done = CliRunner().invoke(app, ["list", "--url", server.url])
    assert done.exit_code == 1
    assert "401 missing_key" in done.stderr


def test_a_key_made_on_the_home_of_a_running_server_works_there(
    new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROOTSTOCK_URL", raising=False)
    home = new_home()
    first = CliRunner().invoke(app, ["create", "--role", "admin", "--home", str(home)])
    settings = Settings(home=home, demo=False, log_level="error")
    with run_server(settings) as running:
        second = CliRunner().invoke(app, ["create", "--role", "predict", "--home", str(home)])
        assert "the server requires one for every call" in second.stderr
        with running.client(first.stdout.strip()) as admin:
            ids = {key["id"] for key in admin.get("/v1/keys").json()["keys"]}
        assert first.stdout.split("_")[1] in ids
        headers = {"Authorization": f"Bearer {second.stdout.strip()}"}
        retry = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=running.url, headers=headers, transport=retry) as client:
            # The server looks for it by itself.
            status = 403
            for _ in range(1000):
                status = client.get("/v1/models").status_code
                if status == 200:
                    break
        assert status == 200


@pytest.mark.parametrize(
    ("text", "length"),
    [("45s", {"seconds": 45}), ("30m", {"minutes": 30}), ("1h", {"hours": 1}), ("90d", {"days": 90}),
     ("2w", {"weeks": 2}), ("0s", {})],
)  # fmt: skip
def test_a_length_of_time_is_a_number_and_a_unit(text: str, length: dict[str, int]) -> None:
    assert length_of_time(text) == timedelta(**length)
    assert point_of_time(text, NOW) == NOW + timedelta(**length)


@pytest.mark.parametrize("text", ["", "h", "1", "-1h", "1 h", "1y", "1h30m", "٣d", "1234567d"])
def test_any_other_length_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey, match="is no length of time"):
        length_of_time(text)


def test_a_point_of_time_may_be_a_date_or_a_time_with_or_without_a_zone() -> None:
    assert point_of_time("2030-01-31", NOW) == datetime(2030, 1, 31, tzinfo=UTC)
    assert point_of_time("2030-01-31T10:00:00+02:00", NOW) == datetime(2030, 1, 31, 8, tzinfo=UTC)
    for text in ("tomorrow", "2030-13-01", "9999-12-31T23:59:59-12:00"):
        with pytest.raises(InvalidKey, match="is no time"):
            point_of_time(text, NOW)

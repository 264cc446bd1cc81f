"""Where versions need approval, a key that publishes moves no request of a name to a new version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.adapters.errors import NotOwner
from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.service.lifecycle.approval import Approval, ApprovalNeeded
from rootstock.service.settings import Settings, SettingsError
from rootstock.service.tenancy.principal import Principal, Role
from tests.adapters.registries import publish as publish_in
from tests.live_server import OWNER, RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

# The calls of the role `publish` that move no request of `live` to a version that was not live before.
HARMLESS = {
    ("delete", "/v1/adapters/{name}"),
    ("delete", "/v1/adapters/{name}/aliases/{alias}/split"),
    ("delete", "/v1/adapters/{name}/rollback-rule"),
    ("delete", "/v1/adapters/{name}/shadow"),
    ("delete", "/v1/adapters/{name}/versions/{version}"),
    ("delete", "/v1/models/{name}"),
    ("post", "/v1/adapters/{name}/rollback"),
    ("post", "/v1/adapters/{name}/undelete"),
    ("post", "/v1/adapters/{name}/versions/{version}/undelete"),
    ("post", "/v1/unload_lora_adapter"),
    ("put", "/v1/adapters/{name}/rollback-rule"),
    ("put", "/v1/adapters/{name}/sharing"),
}
# The others, which ask the approval first. Each has a test below.
ACTIVATING = {
    ("post", "/v1/adapters"),
    ("post", "/v1/load_lora_adapter"),
    ("put", "/v1/adapters/{name}/aliases/{alias}"),
    ("put", "/v1/adapters/{name}/aliases/{alias}/split"),
    ("put", "/v1/adapters/{name}/shadow"),
}


@pytest.fixture(scope="module", params=["admin", "second"])
def server(
    request: pytest.FixtureRequest,
    new_home: Callable[[], Path],
    peft_saved: dict[str, PeftAdapter],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("folder")
    shutil.copytree(peft_saved["first"].folder, folder / "saved")
    settings = Settings(
        home=new_home(),
        demo=False,
        log_level="error",
        admin_key=OWNER,
        approval=request.param,
        adapter_folder=folder,
    )
    with run_server(settings) as running:
        yield running


@pytest.fixture
def keys(server: RunningServer) -> Iterator[dict[str, httpx.Client]]:
    """Yield clients of an admin, of two keys that publish, and of the one that approves by the server's rule."""
    with ExitStack() as stack:
        admin = stack.enter_context(server.client(OWNER))
        clients = {"admin": admin}
        for name in ("first", "second"):
            made = admin.post("/v1/keys", json={"role": "publish"}).json()
            clients[name] = stack.enter_context(server.client(made["key"]))
            clients[name].headers["X-Id"] = made["id"]
        for adapter in admin.get("/v1/adapters").json()["adapters"]:
            admin.delete(f"/v1/adapters/{adapter['name']}?purge=true")
        rule = server.app.state.server.approval._rule
        clients["approver"] = clients["admin" if rule == "admin" else "second"]
        yield clients


def publish(client: httpx.Client, saved: PeftAdapter, mark: str, **fields: str) -> dict[str, Any]:
    answer = upload(client, "mood", saved.zip(), labels=json.dumps([f"{mark}-{i}" for i in range(3)]), **fields)
    assert answer.is_success, answer.text
    document: dict[str, Any] = answer.json()
    return document


def live(client: httpx.Client) -> int | None:
    number: int | None = client.get("/v1/adapters/mood").json()["live"]
    return number


def promote(client: httpx.Client, version: int, alias: str = LIVE) -> httpx.Response:
    return client.put(f"/v1/adapters/mood/aliases/{alias}", json={"version": version})


def test_an_upload_is_published_and_awaits_approval_until_another_key_makes_it_live(
    keys: dict[str, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, approver = keys["first"], keys["approver"]
    done = publish(first, peft_saved["first"], "one")
    number = done["version"]
    assert (done["awaits_approval"], live(first)) == (True, None)
    who = f"default/{first.headers['X-Id']}"
    shown = first.get(f"/v1/adapters/mood/versions/{number}").json()
    assert shown["published_by"] == who
    (event,) = first.get("/v1/adapters/mood/events?limit=1").json()["events"]
    assert (event["what"], event["version"], event["alias"], event["who"]) == (
        "activation_requested", number, "live", who,
    )  # fmt: skip
    refused = promote(first, number)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "approval_needed")
    assert live(first) is None
    assert promote(first, number, "staging").status_code == 200
    assert first.post("/v1/predict", json={"model": f"mood@{number}", "inputs": "x"}).status_code == 200
    assert promote(approver, number).status_code == 200
    assert live(first) == number
    again = publish(first, peft_saved["first"], "one")
    assert (again["version"], again["awaits_approval"]) == (number, False), "it is live already"


def test_a_repeated_upload_asks_once_and_one_that_asks_for_nothing_awaits_nothing(
    keys: dict[str, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first = keys["first"]
    done = [publish(first, peft_saved["first"], "one") for _ in range(2)]
    assert [one["awaits_approval"] for one in done] == [True, True]
    assert publish(first, peft_saved["first"], "two", activate="false")["awaits_approval"] is False
    events = first.get("/v1/adapters/mood/events").json()["events"]
    asked = [one["version"] for one in events if one["what"] == "activation_requested"]
    assert asked[:2].count(done[0]["version"]) == 1
    assert live(first) is None


def test_a_rollback_and_an_undeletion_need_no_approval(
    keys: dict[str, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, approver = keys["first"], keys["approver"]
    numbers = [publish(first, peft_saved["first"], mark)["version"] for mark in ("one", "two")]
    for number in numbers:
        assert promote(approver, number).status_code == 200
    assert first.post("/v1/adapters/mood/rollback").json()["version"] == numbers[0]
    assert promote(first, numbers[1]).status_code == 403
    assert first.delete(f"/v1/adapters/mood/versions/{numbers[0]}?force=true").status_code == 204
    assert live(first) is None
    assert first.post(f"/v1/adapters/mood/versions/{numbers[0]}/undelete").json()["aliases"] == {
        "live": numbers[0]
    }


def test_a_version_that_awaits_approval_gets_no_share_of_live_and_no_copy_of_its_requests(
    keys: dict[str, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, approver = keys["first"], keys["approver"]
    one, two = (publish(first, peft_saved["first"], mark)["version"] for mark in ("one", "two"))
    assert promote(approver, one).status_code == 200
    shares, shadow = {"candidates": {str(two): 10}}, {"version": two, "percent": 10}
    for path, body in (("aliases/live/split", shares), ("shadow", shadow)):
        refused = first.put(f"/v1/adapters/mood/{path}", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "approval_needed")
        assert approver.put(f"/v1/adapters/mood/{path}", json=body).status_code == 200
    assert promote(first, one, "staging").status_code == 200
    assert first.put("/v1/adapters/mood/aliases/staging/split", json=shares).status_code == 200


def test_vllm_s_load_route_publishes_and_says_that_approval_is_awaited(
    keys: dict[str, httpx.Client],
) -> None:
    load = {"lora_name": "mood", "lora_path": "saved"}
    answer = keys["first"].post("/v1/load_lora_adapter", json=load)
    assert (answer.status_code, "awaits approval" in answer.text) == (202, True)
    assert live(keys["first"]) is None


def test_whoever_may_approve_activates_by_an_upload_too(
    keys: dict[str, httpx.Client], peft_saved: dict[str, PeftAdapter], server: RunningServer
) -> None:
    done = publish(keys["first"], peft_saved["first"], "one")
    approved = publish(keys["approver"], peft_saved["first"], "one")
    assert (approved["version"], approved["awaits_approval"]) == (done["version"], False)
    assert live(keys["first"]) == done["version"]
    own = publish(keys["admin"], peft_saved["first"], "two")
    second_rule = server.app.state.server.approval._rule == "second"
    assert own["awaits_approval"] is second_rule, "an admin approves its own version by the rule `admin` alone"


def test_every_call_that_publishes_or_moves_is_known_to_these_tests(keys: dict[str, httpx.Client]) -> None:
    document = keys["admin"].get("/openapi.json").json()
    publishing = {
        (method, path)
        for path, methods in document["paths"].items()
        for method, spec in methods.items()
        if {"publish_key": []} in spec["security"] and {"predict_key": []} not in spec["security"]
    }
    assert publishing == HARMLESS | ACTIVATING


@pytest.mark.parametrize(
    ("rule", "role", "key", "may"),
    [
        ("none", "publish", "a", True),
        ("admin", "publish", "a", False),
        ("admin", "publish", "b", False),
        ("admin", "admin", "a", True),
        ("second", "publish", "a", False),
        ("second", "publish", "b", True),
        ("second", "admin", "a", False),
        ("second", "admin", "b", True),
    ],
)
def test_a_rule_decides_by_the_role_or_by_who_published(
    tmp_path: Path, rule: Any, role: Role, key: str, may: bool
) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as whole:
        registry = TenantRegistry(whole, "acme", "acme/a")
        publish_in(registry, "mood", "content", activate=False)
        approval, principal = Approval(rule), Principal("acme", role, key)
        approval.check(principal, registry, "mood", "staging", 1)
        if may:
            approval.check(principal, registry, "mood", LIVE, 1)
        else:
            with pytest.raises(ApprovalNeeded, match="rootstock adapters promote mood 1"):
                approval.check(principal, registry, "mood", LIVE, 1)


@pytest.mark.parametrize("rule", ["admin", "second"])
def test_nobody_is_told_to_have_an_adapter_of_another_tenant_approved(tmp_path: Path, rule: Any) -> None:
    """The registry refuses the change, and says that the adapter is another tenant's."""
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as whole:
        publish_in(TenantRegistry(whole, "default", "default/a"), "mood", "content", activate=False)
        whole.share("mood", True)
        acme = TenantRegistry(whole, "acme", "acme/b")
        for name in ("mood", "default/mood"):
            Approval(rule).check(Principal("acme", "publish", "b"), acme, name, LIVE, 1)
            with pytest.raises(NotOwner):
                acme.set_alias(name, LIVE, 1)


@pytest.mark.parametrize("rule", ["admin", "second"])
def test_a_version_of_an_unknown_publisher_is_approved_by_an_admin_alone(tmp_path: Path, rule: Any) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as registry:
        publish_in(registry, "mood", "content", activate=False)
        Approval(rule).check(Principal("default", "admin", "a"), registry, "mood", LIVE, 1)
        with pytest.raises(ApprovalNeeded):
            Approval(rule).check(Principal("default", "publish", "a"), registry, "mood", LIVE, 1)


def test_a_server_whose_versions_need_approval_needs_keys() -> None:
    for settings in (Settings(approval="admin"), Settings(approval="second")):
        with pytest.raises(SettingsError, match="ROOTSTOCK_APPROVAL"):
            settings.check_approval(stored_keys=False)
        settings.check_approval(stored_keys=True)
    Settings(approval="admin", admin_key=OWNER).check_approval(stored_keys=False)
    Settings().check_approval(stored_keys=False)

"""Keys over HTTP: who may make, see, rotate and revoke them, and what each of them allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.adapters.home.home import Home
from rootstock.adapters.registry.key_issue import issue_key
from rootstock.service.settings import Settings, SettingsError
from tests.live_server import OWNER, READER, RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

PREDICT = {"model": "foundation", "inputs": "x"}


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]) -> Iterator[RunningServer]:
    """Yield a server with an admin key of the settings, a key in the registry, and an adapter."""
    settings = Settings(home=new_home(), demo=False, log_level="error", admin_key=OWNER, max_body_mb=1)
    with run_server(settings) as running, running.client(OWNER) as owner:
        assert upload(owner, "mood", peft_saved["first"].zip()).status_code == 201
        created(owner, role="admin")
        yield running


@pytest.fixture(scope="module")
def owner(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(OWNER) as client:
        yield client


def created(client: httpx.Client, role: str = "predict", **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"role": role, **fields})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_new_key_is_shown_once_and_no_cache_may_keep_it(owner: httpx.Client) -> None:
    answer = owner.post("/v1/keys", json={"tenant": "acme", "role": "predict", "label": "web shop"})
    key = answer.json()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch(rf"rsk_{key['id']}_[0-9a-f]{{64}}", key["key"])
    (listed,) = [one for one in owner.get("/v1/keys").json()["keys"] if one["id"] == key["id"]]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    assert (listed["state"], listed["created_at"][-1]) == ("good", "Z")


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("predict", {"infer", "read", "download"}), ("publish", {"infer", "read", "download", "publish"}),
     ("admin", {"infer", "read", "download", "publish", "administer"})],
)  # fmt: skip
def test_a_role_may_do_what_it_is_for_and_nothing_more(
    server: RunningServer, owner: httpx.Client, role: str, allowed: set[str]
) -> None:
    with server.client(created(owner, role)["key"]) as client, server.client() as stranger:
        calls: dict[str, Callable[[httpx.Client], list[httpx.Response]]] = {
            "infer": lambda c: [c.post("/v1/predict", json=PREDICT), c.post("/embed", json={"inputs": "x"})],
            "read": lambda c: [c.get("/v1/adapters"), c.get("/v1/events"), c.get("/v1/models")],
            "download": lambda c: [c.get("/v1/adapters/mood/versions/1/bundle")],
            "publish": lambda c: [
                c.put("/v1/adapters/mood/aliases/live", json={"version": 1}),
                c.delete("/v1/adapters/nobody"),
                c.post("/v1/unload_lora_adapter", json={"lora_name": "nobody"}),
                c.delete("/v1/models/nobody"),
            ],
            "administer": lambda c: [
                c.get("/v1/keys"),
                c.delete(f"/v1/keys/{'0' * 16}"),
                c.get("/v1/tenants/acme/quota"),
            ],
        }
        for what, call in calls.items():
            for answer in call(client):
                assert (answer.status_code in (200, 204, 404)) is (what in allowed), (what, answer.text)
                if what not in allowed:
                    assert refusal(answer) == (403, "wrong_key")
                    assert role in answer.json()["error"]["message"]
            for answer in call(stranger):
                assert refusal(answer) == (401, "missing_key")
                assert answer.headers["www-authenticate"] == "Bearer"


def test_a_revoked_key_is_refused_at_once_and_for_ever(server: RunningServer, owner: httpx.Client) -> None:
    key = created(owner)
    with server.client(key["key"]) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200
        for _ in range(2):
            assert owner.delete(f"/v1/keys/{key['id']}").status_code == 204
            answer = client.post("/v1/predict", json=PREDICT)
            assert refusal(answer) == (401, "revoked_key")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert refusal(owner.post(f"/v1/keys/{key['id']}/rotation", json={})) == (409, "ended_key")


def test_a_key_expires(server: RunningServer, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    key = created(owner, expires_at=ends.isoformat())
    ring = server.app.state.server.access.ring
    with server.client(key["key"]) as client:
        assert client.get("/v1/models").status_code == 200
        monkeypatch.setattr(ring, "_clock", lambda: ends - timedelta(seconds=1))
        assert client.get("/v1/models").status_code == 200
        monkeypatch.setattr(ring, "_clock", lambda: ends)
        assert refusal(client.get("/v1/models")) == (401, "expired_key")


def test_both_keys_of_a_rotation_are_good_until_the_overlap_ends(
    server: RunningServer, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = created(owner, "publish", tenant="acme", label="web shop", requests_per_minute=1000)
    answer = owner.post(f"/v1/keys/{old['id']}/rotation", json={"overlap_seconds": 600})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    new = answer.json()
    same = ("tenant", "role", "label", "requests_per_minute")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    ring = server.app.state.server.access.ring
    with server.client(old["key"]) as before, server.client(new["key"]) as after:
        assert before.get("/v1/models").status_code == after.get("/v1/models").status_code == 200
        monkeypatch.setattr(ring, "_clock", lambda: datetime.now(UTC) + timedelta(seconds=601))
        assert refusal(before.get("/v1/models")) == (401, "expired_key")
        assert after.get("/v1/models").status_code == 200


def test_an_admin_of_a_tenant_administers_that_tenant_alone(server: RunningServer, owner: httpx.Client) -> None:
    admin, foreign = created(owner, "admin", tenant="acme"), created(owner, tenant="other")
    with server.client(admin["key"]) as client:
        assert {key["tenant"] for key in client.get("/v1/keys").json()["keys"]} == {"acme"}
        own = created(client)
        assert own["tenant"] == "acme"
        for tenant in ("other", "default", "nobody", "N O"):
            answers = [
                client.post("/v1/keys", json={"role": "predict", "tenant": tenant}),
                client.get("/v1/keys", params={"tenant": tenant}),
                client.get(f"/v1/tenants/{tenant}/quota"),
            ]
            for answer in answers:
                assert refusal(answer) == (403, "foreign_tenant")
        # Not even its own quota: that limits it.
        assert refusal(client.put("/v1/tenants/acme/quota", json={})) == (403, "foreign_tenant")
        assert client.get("/v1/tenants/acme/quota").status_code == 200
        for method, path in (("DELETE", "/v1/keys/{}"), ("POST", "/v1/keys/{}/rotation")):
            answers = [
                client.request(method, path.format(id), json={} if method == "POST" else None)
                for id in (foreign["id"], "0" * 16)
            ]
            assert [refusal(answer) for answer in answers] == [(404, "unknown_key")] * 2
            texts = [answer.text.replace(foreign["id"], "0" * 16) for answer in answers]
            assert texts[0] == texts[1]
        assert client.delete(f"/v1/keys/{own['id']}").status_code == 204
    with server.client(foreign["key"]) as client:
        assert client.get("/v1/models").status_code == 200


def test_the_key_decides_whose_adapters_a_request_sees_and_changes_and_whose_bytes_count(
    server: RunningServer, owner: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publisher, other = (created(owner, "publish", tenant=tenant) for tenant in ("farm", "mill"))
    with server.client(publisher["key"]) as farm, server.client(other["key"]) as mill:
        before = owner.get("/v1/tenants/default/quota").json()["stored_bytes"]
        assert upload(farm, "grain", peft_saved["first"].zip()).status_code == 201
        assert farm.get("/v1/adapters/grain/versions/1/bundle").status_code == 200
        for client in (mill, owner):
            assert refusal(client.get("/v1/adapters/grain")) == (404, "unknown_adapter")
            assert refusal(client.delete("/v1/adapters/grain")) == (404, "unknown_adapter")
            assert "grain" not in client.get("/v1/models").text + client.get("/v1/events").text
        assert refusal(farm.get("/v1/adapters/mood")) == (404, "unknown_adapter")
        events = farm.get("/v1/events").json()["events"]
        assert {event["who"] for event in events} == {f"farm/{publisher['id']}"}
        stored = {
            tenant: owner.get(f"/v1/tenants/{tenant}/quota").json()["stored_bytes"]
            for tenant in ("farm", "mill", "default")
        }
        assert stored["farm"] > 0
        assert (stored["mill"], stored["default"]) == (0, before)
        # Both tenants have the same bytes, and a deletion by one leaves the other's.
        assert upload(mill, "grain", peft_saved["first"].zip()).status_code == 201
        assert farm.delete("/v1/adapters/grain").status_code == 204
        assert mill.get("/v1/adapters/grain/versions/1/bundle").status_code == 200


def test_only_the_operator_s_key_gets_the_metrics_that_name_adapters(
    server: RunningServer, owner: httpx.Client
) -> None:
    assert owner.post("/v1/predict", json={"model": "mood", "inputs": "x"}).status_code == 200
    assert 'adapter="mood"' in owner.get("/metrics").text
    tenant = created(owner, "admin", tenant="acme")
    with server.client(tenant["key"]) as admin, server.client("wrong") as wrong, server.client() as stranger:
        for client in (admin, wrong, stranger):
            page = client.get("/metrics")
            assert page.status_code == 200
            assert 'adapter="' not in page.text


@pytest.mark.parametrize(
    "body",
    [
        {"role": "root"}, {"role": ["admin"]}, {"role": None}, {"tenant": "A"}, {"tenant": 1}, {"tenant": "a/b"},
        {"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "2090-01-01"}, {"expires_at": 1e300},
        {"expires_at": "9999-12-31T23:59:59-12:00"}, {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"label": "x" * 201}, {"label": "a\nb"}, {"label": 1}, {"label": "\u0000"},
        {"requests_per_minute": 0}, {"tokens_per_minute": 1.5}, {"stored_mb": 10**30}, {"stored_mb": True},
        {"secret": "mine"}, {"id": "0" * 16}, {"key": "rsk_"}, {"hash": "0" * 64},
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_422_and_makes_none(owner: httpx.Client, body: dict[str, Any]) -> None:
    before = owner.get("/v1/keys").json()
    assert owner.post("/v1/keys", json={"role": "predict", **body}).status_code == 422
    assert owner.get("/v1/keys").json() == before


@pytest.mark.parametrize("id", ["0" * 16, "x", "%00", "..%2F", "%F0%9F%94%91", "0" * 5000])
def test_an_id_that_no_key_has_is_404(owner: httpx.Client, id: str) -> None:
    assert owner.delete(f"/v1/keys/{id}").status_code == 404
    assert owner.post(f"/v1/keys/{id}/rotation", json={}).status_code == 404


@pytest.mark.parametrize("overlap", [-1, 366 * 86_400, 1.5, "1h", None, True])
def test_an_overlap_that_cannot_be_is_422(owner: httpx.Client, overlap: Any) -> None:
    key = created(owner)
    assert owner.post(f"/v1/keys/{key['id']}/rotation", json={"overlap_seconds": overlap}).status_code == 422


@pytest.mark.parametrize(
    "header",
    ["Bearer {other}x", "Bearer rsk_{id}_" + "0" * 64, "Bearer rsk_{id}_", "Bearer rsk_{id}", "Bearer {id}",
     "Bearer a.b.c", "Bearer \xff", "Bearer rsk_" + "0" * 16 + "_" + "0" * 64],
)  # fmt: skip
def test_no_guess_at_a_key_is_taken(server: RunningServer, owner: httpx.Client, header: str) -> None:
    key = created(owner)
    guess = header.format(id=key["id"], other=key["key"]).encode("latin-1")
    with server.client() as client:
        answer = client.get("/v1/models", headers={b"Authorization": guess})
    assert refusal(answer) == (403, "wrong_key")


@pytest.mark.parametrize("header", ["", "Bearer", "Basic {key}", "{key}", "Token {key}"])
def test_a_key_in_another_form_than_a_bearer_token_is_no_key(
    server: RunningServer, owner: httpx.Client, header: str
) -> None:
    with server.client() as client:
        answer = client.get("/v1/models", headers={"Authorization": header.format(key=created(owner)["key"])})
    assert refusal(answer) == (401, "missing_key")


def test_the_first_key_of_an_open_server_is_an_admin_s_and_closes_it(serve: Callable[..., RunningServer]) -> None:
    running = serve()
    with running.client() as stranger:
        for body in ({"role": "predict"}, {"role": "admin", "tenant": "acme"}):
            assert refusal(stranger.post("/v1/keys", json=body)) == (409, "first_key")
        assert stranger.post("/v1/predict", json=PREDICT).status_code == 200
        key = created(stranger, "admin")
        for answer in (stranger.post("/v1/predict", json=PREDICT), stranger.get("/v1/keys")):
            assert refusal(answer) == (401, "missing_key")
        assert stranger.get("/readyz").status_code == 200
        # A server with keys takes any host's name, as its clients have keys.
        named = {"Host": "models.example.com", "Authorization": f"Bearer {key['key']}"}
        assert stranger.get("/v1/models", headers=named).status_code == 200
        document = stranger.get("/openapi.json").json()
        assert {} not in document["paths"]["/v1/predict"]["post"]["security"]
    with running.client(key["key"]) as admin:
        assert created(admin)["tenant"] == "default"
        assert admin.delete(f"/v1/keys/{key['id']}").status_code == 204
        # The server stays closed when its last admin key has gone.
        assert refusal(admin.get("/v1/keys")) == (401, "revoked_key")
    with running.client() as stranger:
        assert refusal(stranger.get("/v1/adapters")) == (401, "missing_key")


def test_a_server_with_keys_in_its_registry_alone_requires_them_and_may_be_reached_from_elsewhere(
    new_home: Callable[[], Path],
) -> None:
    home = new_home()
    settings = Settings(home=home, demo=False, log_level="error", host="0.0.0.0", cors_origins="*")
    with pytest.raises(SettingsError, match="no key in the registry"):
        settings.check_openness(stored_keys=False)
    registry = Home(home).open_registry()
    key = issue_key(registry.keys, "default", "predict", datetime.now(UTC))
    registry.close()
    with run_server(settings) as running:
        with running.client() as stranger:
            assert refusal(stranger.post("/v1/predict", json=PREDICT)) == (401, "missing_key")
        with running.client(key.text) as client:
            assert client.post("/v1/predict", json=PREDICT).status_code == 200


def test_an_admin_key_alone_leaves_reading_open_and_the_weights_closed(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    running = serve(admin_key=OWNER)
    bundle = "/v1/adapters/mood/versions/1/bundle"
    with running.client(OWNER) as owner, running.client() as stranger, running.client("sk-unused") as other:
        assert upload(owner, "mood", peft_saved["first"].zip()).status_code == 201
        for path in ("/v1/adapters", "/v1/adapters/mood", "/v1/adapters/mood/card", "/v1/events", "/v1/models"):
            assert stranger.get(path).status_code == other.get(path).status_code == 200, path
        # Clients of other servers always send a key.
        assert other.post("/v1/predict", json=PREDICT).status_code == 200
        for path in (bundle, f"{bundle}/", f"{bundle}//", bundle.replace("mood", "nobody")):
            assert refusal(stranger.get(path)) == (401, "missing_key"), path
        assert refusal(other.get(bundle)) == (403, "wrong_key")
        assert stranger.head(bundle).status_code == 401
        assert owner.get(bundle).content.startswith(b"PK")
        for path in ("/v1/keys", "/v1/tenants/acme/quota"):
            assert refusal(stranger.get(path)) == (401, "missing_key")


def test_no_secret_is_in_the_log(
    serve: Callable[..., RunningServer], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(log_level="debug", admin_key=OWNER, api_key=READER)
    secrets = [OWNER, READER]
    with running.client(OWNER) as owner:
        keys = [created(owner, "admin"), created(owner, requests_per_minute=1)]
        keys.append(owner.post(f"/v1/keys/{keys[0]['id']}/rotation", json={}).json())
        owner.delete(f"/v1/keys/{keys[2]['id']}")
        secrets += [key["key"].rpartition("_")[2] for key in keys]
        ring = running.app.state.server.access.ring
        secrets += [ring.registry.find(key["id"]).hash for key in keys]
        guesses = ["wrong-0123456789abcdef", f"rsk_{keys[0]['id']}_{'5' * 64}", "aaaa.bbbb.cccc"]
        secrets += [*guesses, "5" * 64]
        for key in (*(key["key"] for key in keys), OWNER, READER, *guesses):
            with running.client(key) as client:
                client.get("/v1/keys")
                client.post("/v1/predict", json=PREDICT)
                client.post("/v1/predict", json={"model": "nobody", "inputs": key})
                client.post("/v1/keys", content=b"{")

        def fail(*_: Any) -> None:
            raise RuntimeError("a fault while the key is at hand")

        monkeypatch.setattr(ring, "check", fail)
        with running.client(keys[0]["key"]) as client:
            assert client.get("/v1/models").status_code == 500
    captured = capfd.readouterr()
    assert '"/v1/keys"' in captured.err
    assert "a fault while the key is at hand" in captured.err
    for secret in secrets:
        assert secret not in captured.err
        assert secret not in captured.out

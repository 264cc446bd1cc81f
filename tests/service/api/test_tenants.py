"""Over HTTP, a tenant sees its own adapters and those that others share, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.tenants import believe_headers, client_of

TENANTS = ("default", "acme", "beta")


def labels(tenant: str, name: str) -> list[str]:
    """Return labels that tell whose adapter answered."""
    return [f"{name}-of-{tenant}-{i}" for i in range(3)]


def publish(client: httpx.Client, tenant: str, name: str, saved: PeftAdapter) -> httpx.Response:
    named = str(labels(tenant, name)).replace("'", '"')
    return upload(client, name, saved.zip(), labels=named)


@pytest.fixture(scope="module")
def folder(peft_saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    for path in (root / "acme" / "loaded", root / "beta" / "loaded"):
        shutil.copytree(peft_saved["first"].folder, path)
    return root


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], folder: Path) -> Iterator[RunningServer]:
    settings = Settings(
        home=new_home(), demo=False, log_level="error", slots=3, adapter_folder=folder,
        served_names="gpt-4=mood,plans=secret-plans",
    )  # fmt: skip
    with run_server(settings, prepare=believe_headers) as running:
        yield running


# The adapters that each tenant has when a test begins, with the saved weights of each. None is shared.
STOCK = {
    "default": {"mood": "first", "secret-plans": "second"},
    "acme": {"mood": "first"},
    "beta": {"mood": "first", "secret-plans": "second"},
}


@pytest.fixture
def clients(server: RunningServer, peft_saved: dict[str, PeftAdapter]) -> Iterator[Callable[[str], httpx.Client]]:
    """Yield the clients of the tenants, which have the adapters of STOCK."""
    with ExitStack() as stack:
        opened = {
            tenant: stack.enter_context(client_of(server, tenant, key=f"{tenant}-key")) for tenant in TENANTS
        }
        for tenant, client in opened.items():
            there = {}
            for adapter in client.get("/v1/adapters").json()["adapters"]:
                name = adapter["name"]
                if "/" in name:
                    continue
                kept = name in STOCK[tenant] and list(adapter["aliases"]) == ["live"] and not adapter["shared"]
                if kept:
                    there[name] = adapter
                else:
                    assert client.delete(f"/v1/adapters/{name}?purge=true").status_code == 204
            for name in STOCK[tenant].keys() - there.keys():
                saved = peft_saved[STOCK[tenant][name]]
                published = publish(client, tenant, name, saved)
                assert published.status_code == 201, published.text
        yield lambda tenant: opened[tenant]


def live(client: httpx.Client, name: str) -> int:
    number: int = client.get(f"/v1/adapters/{name}").json()["live"]
    return number


def predict(client: httpx.Client, model: str) -> httpx.Response:
    return client.post("/v1/predict", json={"model": model, "inputs": "any text"})


def told(answer: httpx.Response) -> str:
    return answer.text + str(sorted(answer.headers.items()))


def test_each_tenant_s_name_answers_with_its_own_adapter(clients: Callable[[str], httpx.Client]) -> None:
    for tenant in TENANTS:
        number = live(clients(tenant), "mood")
        for model in ("mood", f"mood@{number}", "mood@live", f"{tenant}/mood", "Mood"):
            (prediction,) = predict(clients(tenant), model).json()["predictions"]
            assert prediction["label"] in labels(tenant, "mood")
        together = clients(tenant).post("/v1/predict", json={"models": ["mood", "foundation"], "inputs": "x"})
        assert together.json()["results"][0]["predictions"][0]["label"] in labels(tenant, "mood")


# The calls that take a reference or a name, each as method, path and body, with `NAME` in them.
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/predict", {"model": "NAME", "inputs": "x"}),
    ("POST", "/v1/predict", {"models": ["NAME", "foundation"], "inputs": "x"}),
    ("POST", "/v1/predict", {"model": "NAME@1", "inputs": "x"}),
    ("POST", "/v1/predict", {"model": "NAME@sha256:0123456789ab", "inputs": "x"}),
    ("POST", "/v1/embeddings", {"model": "NAME", "input": "x"}),
    ("POST", "/v1/rerank", {"model": "NAME", "query": "x", "documents": ["y"]}),
    ("POST", "/v1/moderations", {"model": "NAME", "input": "x"}),
    ("POST", "/v1/chat/completions", {"model": "NAME", "messages": [{"role": "user", "content": "x"}]}),
    ("POST", "/v1/completions", {"model": "NAME", "prompt": "x"}),
    ("POST", "/tokenize", {"model": "NAME", "prompt": "x"}),
    ("POST", "/classify", {"model": "NAME", "input": "x"}),
    ("POST", "/v1/score", {"model": "NAME", "text_1": "x", "text_2": "y"}),
    ("POST", "/pooling", {"model": "NAME", "input": "x"}),
    ("POST", "/predict?model=NAME", {"inputs": "x"}),
    ("POST", "/embed?model=NAME", {"inputs": "x"}),
    ("POST", "/models/NAME", {"inputs": "x"}),
    ("POST", "/v1/models/NAME:predict", {"instances": ["x"]}),
    ("GET", "/v1/models/NAME", None),
    ("DELETE", "/v1/models/NAME", None),
    ("GET", "/v2/models/NAME", None),
    ("GET", "/v2/models/NAME/ready", None),
    ("GET", "/v1/adapters/NAME", None),
    ("GET", "/v1/adapters/NAME/card", None),
    ("GET", "/v1/adapters/NAME/events", None),
    ("GET", "/v1/adapters/NAME/versions/1", None),
    ("GET", "/v1/adapters/NAME/versions/1/card", None),
    ("GET", "/v1/adapters/NAME/versions/1/bundle", None),
    ("PUT", "/v1/adapters/NAME/aliases/prod", {"version": 1}),
    ("PUT", "/v1/adapters/NAME/sharing", {"shared": True}),
    ("PUT", "/v1/adapters/NAME/shadow", {"version": 1, "percent": 10}),
    ("DELETE", "/v1/adapters/NAME/shadow", None),
    ("PUT", "/v1/adapters/NAME/rollback-rule", {"max_disagreement": 0.1}),
    ("GET", "/v1/adapters/NAME/rollback-rule", None),
    ("DELETE", "/v1/adapters/NAME/rollback-rule", None),
    ("POST", "/v1/adapters/NAME/rollback", None),
    ("DELETE", "/v1/adapters/NAME", None),
    ("DELETE", "/v1/adapters/NAME/versions/1", None),
    ("DELETE", "/v1/adapters/NAME?purge=true", None),
    ("DELETE", "/v1/adapters/NAME/versions/1?purge=true", None),
    ("GET", "/v1/adapters/NAME/deleted", None),
    ("POST", "/v1/adapters/NAME/versions/1/undelete", None),
    ("POST", "/v1/adapters/NAME/undelete", None),
    ("POST", "/v1/unload_lora_adapter", {"lora_name": "NAME"}),
]


def with_name(part: Any, name: str) -> Any:
    if isinstance(part, str):
        return part.replace("NAME", name)
    if isinstance(part, dict):
        return {key: with_name(value, name) for key, value in part.items()}
    return [with_name(value, name) for value in part] if isinstance(part, list) else part


@pytest.mark.parametrize(
    ("method", "path", "body"), CALLS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_private_adapter_of_another_tenant_answers_as_a_name_that_nobody_has(
    clients: Callable[[str], httpx.Client], method: str, path: str, body: Any
) -> None:
    for owner in ("", "beta/", "default/"):
        answers = []
        for name in ("secret-plans", "nobodys-plan"):
            called = owner + name
            answer = clients("acme").request(method, with_name(path, called), json=with_name(body, called))
            unlike = ("date", "x-request-id", "content-length")
            headers = {key: value for key, value in answer.headers.items() if key not in unlike}
            text = answer.text.replace(called, "NAME")
            answers.append((answer.status_code, _without_times(text), headers))
        assert answers[0] == answers[1]
        assert answers[0][0] >= 400 or "models" in (body or {})
    assert predict(clients("beta"), "secret-plans").status_code == 200


def _without_times(text: str) -> str:
    """Return an answer without its timings, which differ from call to call."""
    return text.partition('"timings"')[0]


LISTS = (
    "/v1/models",
    "/v1/models?limit=2",
    "/v1/adapters",
    "/v1/adapters?search=secret",
    "/v1/events",
    "/v2/repository/index",
    "/",
    "/info",
    "/models",
    "/v1/limits",
    "/metrics",
    "/openapi.json",
)


@pytest.mark.parametrize("path", LISTS)
def test_no_list_tells_of_another_tenant_s_adapters(
    clients: Callable[[str], httpx.Client], path: str, peft_saved: dict[str, PeftAdapter]
) -> None:
    for model in ("mood", "secret-plans"):
        for tenant in ("default", "beta"):
            assert predict(clients(tenant), model).status_code == 200
    method = "POST" if path.startswith("/v2/repository") else "GET"
    before = clients("acme").request(method, path)
    for tenant in ("default", "beta"):
        assert "secret-plans" in told(clients(tenant).get("/v1/adapters"))
        assert upload(clients(tenant), "further-plans", peft_saved["embedder"].zip()).status_code == 201
    after = clients("acme").request(method, path)
    for answer in (before, after):
        assert "plans" not in told(answer)
        assert "beta" not in told(answer)
    if path != "/metrics":
        assert before.content == after.content


def test_a_shared_adapter_is_used_and_listed_by_all_until_it_is_taken_back(
    clients: Callable[[str], httpx.Client],
) -> None:
    assert clients("beta").put("/v1/adapters/secret-plans/sharing", json={"shared": True}).json() == {
        "name": "secret-plans",
        "shared": True,
    }
    acme = clients("acme")
    (prediction,) = predict(acme, "beta/secret-plans").json()["predictions"]
    assert prediction["label"] in labels("beta", "secret-plans")
    assert [one["name"] for one in acme.get("/v1/adapters").json()["adapters"]] == ["beta/secret-plans", "mood"]
    assert "beta/secret-plans" in [one["id"] for one in acme.get("/v1/models").json()["data"]]
    assert acme.get("/v1/models/beta/secret-plans@live").json()["root"] == "beta/secret-plans"
    assert predict(acme, "secret-plans").status_code == 404
    classified = acme.post("/classify", json={"model": "beta/secret-plans", "input": "x"})
    assert classified.json()["data"][0]["label"] in labels("beta", "secret-plans")
    assert acme.delete("/v1/models/beta/secret-plans").json()["error"]["code"] == "not_owner"
    assert clients("beta").put("/v1/adapters/secret-plans/sharing", json={"shared": False}).status_code == 200
    assert predict(acme, "beta/secret-plans").status_code == 404
    assert [one["name"] for one in acme.get("/v1/adapters").json()["adapters"]] == ["mood"]


def test_a_name_alone_falls_back_to_what_the_default_tenant_shares(
    clients: Callable[[str], httpx.Client],
) -> None:
    assert predict(clients("acme"), "secret-plans").status_code == 404
    clients("default").put("/v1/adapters/secret-plans/sharing", json={"shared": True})
    (prediction,) = predict(clients("acme"), "secret-plans").json()["predictions"]
    assert prediction["label"] in labels("default", "secret-plans")
    assert clients("acme").get("/v1/adapters/secret-plans").json()["name"] == "default/secret-plans"
    number = live(clients("default"), "secret-plans")
    assert clients("acme").get(f"/v1/adapters/secret-plans/versions/{number}/bundle").status_code == 200
    refused = clients("acme").put("/v1/adapters/secret-plans/aliases/prod", json={"version": number})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_owner")
    (prediction,) = predict(clients("beta"), "secret-plans").json()["predictions"]
    assert prediction["label"] in labels("beta", "secret-plans"), "an own adapter comes first"


def test_a_served_name_means_the_default_tenant_s_adapter_and_nothing_while_that_is_private(
    clients: Callable[[str], httpx.Client],
) -> None:
    (prediction,) = predict(clients("default"), "gpt-4").json()["predictions"]
    assert prediction["label"] in labels("default", "mood")
    for method, path, body in CALLS:
        if "/adapters/" in path or "unload" in path:
            continue
        answer = clients("acme").request(method, with_name(path, "gpt-4"), json=with_name(body, "gpt-4"))
        assert "mood" not in told(answer), (path, answer.text)
        answer = clients("acme").request(method, with_name(path, "plans"), json=with_name(body, "plans"))
        assert "secret" not in told(answer), (path, answer.text)
    assert predict(clients("acme"), "gpt-4").status_code == 404
    clients("default").put("/v1/adapters/mood/sharing", json={"shared": True})
    (prediction,) = predict(clients("acme"), "GPT-4").json()["predictions"]
    assert prediction["label"] in labels("default", "mood")
    classified = clients("acme").post("/classify", json={"model": "gpt-4", "input": "x"})
    assert classified.json()["data"][0]["label"] in labels("default", "mood")
    assert "gpt-4" in [one["id"] for one in clients("acme").get("/v1/models").json()["data"]]


def test_bytes_that_two_tenants_published_stay_until_both_have_deleted_them(
    server: RunningServer, clients: Callable[[str], httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first = upload(clients("acme"), "same", peft_saved["embedder"].zip())
    second = upload(clients("beta"), "same", peft_saved["embedder"].zip())
    assert (first.status_code, second.status_code) == (201, 201), "that another tenant has it is not told"
    assert first.json() == second.json()
    assert upload(clients("beta"), "same", peft_saved["embedder"].zip()).status_code == 200
    assert clients("acme").delete("/v1/adapters/same").status_code == 204
    digest = second.json()["digest"]
    assert server.app.state.server.foundations.first.catalog.store.path(digest).exists()
    assert clients("beta").post("/v1/embeddings", json={"model": "same", "input": "x"}).status_code == 200
    assert clients("beta").get("/v1/adapters/same/versions/1/bundle").status_code == 200
    assert clients("beta").delete("/v1/adapters/same?purge=true").status_code == 204
    assert server.app.state.server.foundations.first.catalog.store.path(digest).exists(), "acme may undelete it"
    assert clients("acme").delete("/v1/adapters/same?purge=true").status_code == 204
    assert not server.app.state.server.foundations.first.catalog.store.path(digest).exists()


def test_an_event_states_the_tenant_and_the_key_that_made_the_change(
    clients: Callable[[str], httpx.Client],
) -> None:
    acme = clients("acme")
    acme.put("/v1/adapters/mood/aliases/prod", json={"version": live(acme, "mood")})
    acme.put("/v1/adapters/mood/sharing", json={"shared": True})
    events = acme.get("/v1/events?limit=2").json()["events"]
    assert [(one["what"], one["who"]) for one in events] == [
        ("shared", "acme/acme-key"),
        ("alias_set", "acme/acme-key"),
    ]
    everything = acme.get("/v1/events?limit=1000").json()["events"]
    assert [one["id"] for one in everything] == list(range(len(everything), 0, -1))


def test_a_tenant_loads_adapters_from_the_folder_of_its_name_alone(
    clients: Callable[[str], httpx.Client], folder: Path
) -> None:
    load = {"lora_name": "loaded", "lora_path": "loaded", "load_inplace": True}
    assert clients("acme").post("/v1/load_lora_adapter", json=load).status_code == 200
    for path in ("../beta/loaded", str(folder / "beta" / "loaded")):
        refused = clients("acme").post("/v1/load_lora_adapter", json={**load, "lora_path": path})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "path_not_allowed")
        assert refused.text == clients("acme").post(
            "/v1/load_lora_adapter", json={**load, "lora_path": path.replace("loaded", "nowhere")}
        ).text.replace("nowhere", "loaded")


def test_a_shared_name_does_not_keep_a_tenant_from_loading_its_own(
    clients: Callable[[str], httpx.Client],
) -> None:
    clients("default").put("/v1/adapters/secret-plans/sharing", json={"shared": True})
    load = {"lora_name": "secret-plans", "lora_path": "loaded"}
    assert "adapter_exists" not in clients("acme").post("/v1/load_lora_adapter", json=load).text
    assert "adapter_exists" in clients("beta").post("/v1/load_lora_adapter", json=load).text


def test_only_the_operator_gets_the_metrics_of_adapters(
    clients: Callable[[str], httpx.Client], server: RunningServer
) -> None:
    for tenant in TENANTS:
        assert predict(clients(tenant), "mood").status_code == 200
    with client_of(server, "default", role="admin") as operator:
        page = operator.get("/metrics").text
    for name in ("mood", "acme/mood", "beta/mood"):
        assert f'rootstock_adapter_tokens_total{{adapter="{name}",task="text-classification"}}' in page
    assert "rootstock_slots_used" in page
    with client_of(server, "acme", role="admin") as admin:
        for reader in (clients("default"), clients("acme"), admin):
            page = reader.get("/metrics").text
            assert "rootstock_requests_total" in page
            for hidden in ("mood", "adapter=", "rootstock_slots_used", "rootstock_cache_adapters"):
                assert hidden not in page


def test_the_series_of_a_deleted_adapter_of_a_tenant_go(
    clients: Callable[[str], httpx.Client], server: RunningServer
) -> None:
    predict(clients("acme"), "mood")
    with client_of(server, "default", role="admin") as operator:
        assert 'adapter="acme/mood"' in operator.get("/metrics").text
        clients("acme").delete("/v1/adapters/mood")
        assert 'adapter="acme/mood"' not in operator.get("/metrics").text
        assert 'adapter="beta/mood"' in operator.get("/metrics").text or predict(clients("beta"), "mood")


def test_the_engine_s_turns_count_the_tenant(
    clients: Callable[[str], httpx.Client], server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = server.app.state.server.foundations.first.engine
    seen: list[str] = []
    put = engine.preprocessor.put

    def noted(requests: Any) -> None:
        seen.extend(request.tenant for request in requests)
        put(requests)

    monkeypatch.setattr(engine.preprocessor, "put", noted)
    for method, path, body in CALLS:
        if method == "POST" and not path.startswith("/v1/adapters"):
            for name in ("mood", "foundation"):
                clients("acme").request(method, with_name(path, name), json=with_name(body, name))
    assert len(seen) > 10
    assert set(seen) == {"acme"}


def test_the_engine_resolves_no_adapter_itself(
    clients: Callable[[str], httpx.Client], server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(reference: str) -> None:
        raise AssertionError(reference)

    monkeypatch.setattr(
        type(server.app.state.server.foundations.first.catalog), "resolve", lambda _, r: refused(r)
    )
    for method, path, body in CALLS:
        if method == "POST" and not path.startswith("/v1/adapters"):
            for name in ("mood", "mood@1", "nobody", "beta/mood", "foundation"):
                answer = clients("acme").request(method, with_name(path, name), json=with_name(body, name))
                assert answer.status_code < 500, (path, answer.text)

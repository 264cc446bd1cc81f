"""Splits over HTTP: on every route a request gets the version of its key, and the answer states it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy.stats import binomtest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import save_adapter
from tests.service.engine.generate.families import make_decoder
from tests.tenants import believe_headers, client_of

TEXT = "Where is my parcel?"
CHAT = {"messages": [{"role": "user", "content": "héllo"}], "max_tokens": 4, "temperature": 0}
# Fields that differ between two answers of one version, or that repeat the reference.
VARYING = {"id", "created", "model", "model_name", "timings", "usage", "meta"}

Headers = Mapping[str, str]
Call = Callable[[httpx.Client, str, Headers], httpx.Response]


def place(stored: str, key: str) -> float:
    """Return the place of a key among the requests of `live`, from 0 to 100, as docs/operations.md states it."""
    return int(hashlib.sha256(f"{stored}\nlive\n{key}".encode()).hexdigest()[:16], 16) / 2**64 * 100


def key_of(stored: str, percent: float, answers: bool) -> str:
    """Return a key that a candidate with this percent answers, or does not answer."""
    keys = (f"user-{i}" for i in range(10_000))
    return next(key for key in keys if (place(stored, key) < percent) is answers)


def saying(path: str, **body: Any) -> Call:
    """Return a call that names the model in its body."""
    return lambda client, model, headers: client.post(path, json={"model": model, **body}, headers=headers)


def at(path: str, **body: Any) -> Call:
    """Return a call that names the model in its path or query, in place of `{}`."""
    return lambda client, model, headers: client.post(path.format(model), json=body, headers=headers)


def tensors(client: httpx.Client, model: str, headers: Headers) -> httpx.Response:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}
    return client.post(f"/v2/models/{model.replace('@', '/versions/')}/infer", json=body, headers=headers)


def invoked(client: httpx.Client, model: str, headers: Headers) -> httpx.Response:
    body = {"instances": [TEXT], "params": {"model": model}}
    return client.post("/invocations", json=body, headers=headers)


def fanned_out(client: httpx.Client, model: str, headers: Headers) -> httpx.Response:
    body = {"models": [model, "words", model], "inputs": TEXT}
    return client.post("/v1/predict", json=body, headers=headers)


RANKED = {"query": TEXT, "documents": ["ok", "at the depot"]}
# Each route, with the adapter for it.
ROUTES: dict[str, tuple[str, Call]] = {
    "predict": ("mood", saying("/v1/predict", inputs=TEXT, parameters={"top_k": None})),
    "fan-out": ("mood", fanned_out),
    "moderations": ("mood", saying("/v1/moderations", input=TEXT)),
    "tei-predict": ("mood", at("/predict?model={}", inputs=TEXT)),
    "vllm-classify": ("mood", saying("/classify", input=TEXT)),
    "hub": ("mood", at("/models/{}", inputs=TEXT)),
    "mlflow": ("mood", invoked),
    "tensors": ("mood", tensors),
    "instances": ("mood", at("/v1/models/{}:predict", instances=[TEXT])),
    "embeddings": ("vectors", saying("/v1/embeddings", input=[TEXT, "ok"])),
    "tei-embed": ("vectors", at("/embed?model={}", inputs=TEXT)),
    "tei-similarity": (
        "vectors", at("/similarity?model={}", inputs={"source_sentence": TEXT, "sentences": ["ok"]}),
    ),
    "cohere-embed": ("vectors", saying("/v2/embed", texts=[TEXT])),
    "vllm-pooling": ("vectors", saying("/pooling", input=TEXT)),
    "rerank": ("ranks", saying("/v1/rerank", **RANKED)),
    "cohere-rerank": ("ranks", saying("/v2/rerank", **RANKED)),
    "vllm-score": ("ranks", saying("/score", text_1=TEXT, text_2=["ok", "at the depot"])),
    "chat": ("talk", saying("/v1/chat/completions", **CHAT)),
    "completions": ("talk", saying("/v1/completions", prompt="héllo", max_tokens=4, temperature=0)),
    "hub-generation": ("talk", at("/models/{}", inputs="héllo", parameters={"details": True})),
}  # fmt: skip
# Those whose answers have a field for the version; every answer has headers.
STATING = ("predict", "embeddings", "rerank", "cohere-rerank", "chat", "completions")


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path], foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Yield a server with two versions of four adapters, and one adapter of one version. `live` is version 1."""
    folder = tmp_path_factory.mktemp("split")
    tiny = make_decoder("llama", folder / "tiny-chat")
    kinds: dict[str, tuple[Path, str, int, dict[str, str]]] = {
        "mood": (foundation.folder, "SEQ_CLS", 3, {}),
        "ranks": (foundation.folder, "SEQ_CLS", 1, {"task": "text-ranking"}),
        "vectors": (foundation.folder, "FEATURE_EXTRACTION", 0, {}),
        "talk": (tiny.folder, "CAUSAL_LM", 0, {"foundation": "tiny-chat"}),
        "words": (foundation.folder, "TOKEN_CLS", 3, {}),
    }
    settings = Settings(
        home=new_home(), foundations=f"default,{tiny.folder}", demo=False, log_level="error", slots=8
    )
    with run_server(settings, prepare=believe_headers) as running, running.client() as client:
        for name, (base, task, labels, fields) in kinds.items():
            sites = {"target_modules": ["q_proj", "v_proj"]} if task == "CAUSAL_LM" else {}
            for seed in range(1 if name == "words" else 2):
                saved = save_adapter(base, folder / f"{name}-{seed}", task, seed, labels, r=8, **sites)
                answer = upload(client, name, saved.zip(), activate=str(seed == 0).lower(), **fields)
                assert answer.status_code == 201, answer.text
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """Yield a client of a server whose adapters have no split, and end the splits afterwards."""
    with server.client() as client:
        yield client
        for name in {adapter for adapter, _ in ROUTES.values()}:
            client.delete(f"/v1/adapters/{name}/aliases/live/split")


def put_split(client: httpx.Client, name: str, alias: str = "live", **candidates: float) -> httpx.Response:
    """Set a split, with each candidate as `v2=10`."""
    body = {"candidates": {version.removeprefix("v"): percent for version, percent in candidates.items()}}
    return client.put(f"/v1/adapters/{name}/aliases/{alias}/split", json=body)


def split(client: httpx.Client, name: str, percent: float) -> None:
    answer = put_split(client, name, v2=percent)
    assert answer.status_code == 200, answer.text


def said(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def alike(one: Any, other: Any) -> bool:
    """Tell whether two answers agree in all that their version decides."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() - VARYING
        return keys == other.keys() - VARYING and all(alike(one[key], other[key]) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-4)
    return bool(one == other)


def ask(client: httpx.Client, key: str | None = None, model: str = "mood", **headers: str) -> Any:
    sent = headers if key is None else {**headers, "X-Request-Key": key}
    answer = client.post("/v1/predict", json={"model": model, "inputs": TEXT}, headers=sent)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("route", list(ROUTES))
def test_each_route_answers_a_key_with_its_version(client: httpx.Client, route: str) -> None:
    name, call = ROUTES[route]
    versions = [said(call(client, f"{name}@{version}", {})) for version in (1, 2)]
    assert not alike(*versions), "the two versions answer alike, so this test tells nothing"
    split(client, name, 50)
    for answers, expected in ((False, versions[0]), (True, versions[1])):
        headers = {"X-Request-Key": key_of(name, 50, answers)}
        for _ in range(2):
            answer = call(client, name, headers)
            assert alike(said(answer), expected)
            assert headed(answer) == stated(client, name, answers)
        for version in (1, 2):
            pinned = said(call(client, f"{name}@{version}", headers))
            assert alike(pinned, versions[version - 1]), "a pinned reference is never split"


@pytest.mark.parametrize("route", STATING)
def test_the_answer_states_the_version_and_the_digest(client: httpx.Client, route: str) -> None:
    name, call = ROUTES[route]
    split(client, name, 50)
    for answers in (False, True):
        answer = call(client, name, {"X-Request-Key": key_of(name, 50, answers)}).json()
        assert (answer["version"], answer["digest"]) == stated(client, name, answers)


def test_a_streamed_answer_states_its_version_in_its_headers(client: httpx.Client) -> None:
    split(client, "talk", 50)
    for answers in (False, True):
        headers = {"X-Request-Key": key_of("talk", 50, answers)}
        body = {"model": "talk", "stream": True, **CHAT}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            assert headed(answer) == stated(client, "talk", answers)


def test_several_references_have_no_headers_of_one_version(client: httpx.Client) -> None:
    split(client, "mood", 100)
    split(client, "vectors", 0.001)
    body = {"models": ["mood", "vectors"], "inputs": TEXT}
    answer = client.post("/v1/predict", json=body)
    assert "X-Model-Version" not in answer.headers
    assert [result["version"] for result in answer.json()["results"]] == [2, 1]


def stated(client: httpx.Client, name: str, answers: bool) -> tuple[int, str]:
    """Return the number and digest of the candidate, version 2, or of version 1."""
    version = client.get(f"/v1/adapters/{name}").json()["versions"][int(answers)]
    return version["version"], version["digest"]


def headed(answer: httpx.Response) -> tuple[int, str]:
    return int(answer.headers["X-Model-Version"]), answer.headers["X-Model-Digest"]


def test_a_tenth_of_the_keys_get_the_candidate_and_each_keeps_its_version(client: httpx.Client) -> None:
    split(client, "mood", 10)
    keys = [f"session-{i}" for i in range(200)]
    first = [ask(client, key)["version"] for key in keys]
    assert binomtest(first.count(2), len(keys), 0.1).pvalue > 1e-4
    assert [ask(client, key)["version"] for key in keys[:30]] == first[:30]
    split(client, "mood", 25)
    raised = [ask(client, key)["version"] for key in keys]
    assert all(after >= before for before, after in zip(first, raised, strict=True)), "towards the candidate only"
    assert binomtest(raised.count(2), len(keys), 0.25).pvalue > 1e-4


def test_without_a_key_each_request_is_drawn(client: httpx.Client) -> None:
    split(client, "mood", 50)
    answered = [ask(client)["version"] for _ in range(100)]
    assert binomtest(answered.count(2), len(answered), 0.5).pvalue > 1e-4


def test_a_request_for_several_references_of_an_alias_gets_one_version(client: httpx.Client) -> None:
    split(client, "mood", 50)
    for _ in range(20):
        body = {"models": ["mood", "mood@live", "mood"], "inputs": TEXT}
        results = client.post("/v1/predict", json=body).json()["results"]
        assert len({result["version"] for result in results}) == 1


def test_the_id_of_the_caller_s_key_is_the_key_unless_the_request_has_one(server: RunningServer) -> None:
    with server.client() as owner:
        split(owner, "mood", 50)
        try:
            ids = [f"{random.Random(i).getrandbits(64):016x}" for i in range(12)]
            for id in ids:
                with client_of(server, "default", key=id) as caller:
                    expected = 2 if place("mood", id) < 50 else 1
                    assert {ask(caller)["version"] for _ in range(3)} == {expected}
                    other = key_of("mood", 50, expected == 1)
                    assert ask(caller, other)["version"] == 3 - expected
            assert {place("mood", id) < 50 for id in ids} == {True, False}
            # All callers share the keys of the settings, so these decide nothing.
            for shared in ("api-key", "admin-key"):
                with client_of(server, "default", key=shared) as caller:
                    assert {ask(caller)["version"] for _ in range(40)} == {1, 2}
        finally:
            owner.delete("/v1/adapters/mood/aliases/live/split")


def test_a_pinned_reference_is_never_split(client: httpx.Client) -> None:
    digest = client.get("/v1/adapters/mood").json()["versions"][0]["digest"]
    client.put("/v1/adapters/mood/aliases/stable", json={"version": 1})
    split(client, "mood", 100)
    assert ask(client, "k")["version"] == ask(client, "k", "mood@live")["version"] == 2
    for reference in ("mood@1", f"mood@{digest}", "mood@stable"):
        assert ask(client, "k", reference)["version"] == 1


def test_the_adapter_shows_its_splits_until_the_alias_moves(client: httpx.Client) -> None:
    assert client.get("/v1/adapters/mood").json()["splits"] == {}
    answer = put_split(client, "mood", v2=12.5)
    assert answer.json() == {"name": "mood", "alias": "live", "version": 1, "candidates": {"2": 12.5}}
    assert client.get("/v1/adapters/mood").json()["splits"] == {"live": {"2": 12.5}}
    client.put("/v1/adapters/mood/aliases/live", json={"version": 2})
    assert client.get("/v1/adapters/mood").json()["splits"] == {}
    assert ask(client, key_of("mood", 50, False))["version"] == 2
    client.post("/v1/adapters/mood/rollback")


def test_a_split_ends_at_once_and_its_end_states_the_version(client: httpx.Client) -> None:
    split(client, "mood", 100)
    assert ask(client, "k")["version"] == 2
    ended = client.delete("/v1/adapters/mood/aliases/live/split")
    assert (ended.status_code, ended.json()["version"]) == (200, 1)
    assert ask(client, "k")["version"] == 1
    again = client.delete("/v1/adapters/mood/aliases/live/split")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "no_split")
    what = [event["what"] for event in client.get("/v1/adapters/mood/events").json()["events"]]
    assert what[:2] == ["split_ended", "split_set"]


def test_a_candidate_cannot_be_deleted_without_force(client: httpx.Client) -> None:
    split(client, "mood", 10)
    answer = client.delete("/v1/adapters/mood/versions/2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_in_use")
    assert "live" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("alias", "candidates", "status", "code"),
    [
        ("live", {"1": 10}, 422, "invalid_split"),
        ("live", {"9": 10}, 404, "unknown_version"),
        ("nobody", {"2": 10}, 404, "unknown_alias"),
        ("a b", {"2": 10}, 422, "invalid_name"),
        *(
            ("live", candidates, 422, "invalid_request")
            for candidates in (
                {}, {"2": 0}, {"2": -5}, {"2": 101}, {"2": "10"}, {"2": True}, {"2": None}, {"02": 10},
                {"two": 10}, {"0": 10}, {"-2": 10}, {"2.0": 10}, {" 2": 10}, {"99999999999": 10}, {"2": 1e400},
                {str(i): 1 for i in range(2, 20)}, [2, 10], "2", None,
            )
        ),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_is_refused_with_its_code(
    client: httpx.Client, alias: str, candidates: Any, status: int, code: str
) -> None:
    # JSON has no infinity: a number beyond all floats stands for it.
    content = json.dumps({"candidates": candidates}).replace("Infinity", "1e400")
    headers = {"Content-Type": "application/json"}
    answer = client.put(f"/v1/adapters/mood/aliases/{alias}/split", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert client.get("/v1/adapters/mood").json()["splits"] == {}


def test_another_tenant_s_split_is_not_there_and_a_shared_adapter_s_is(server: RunningServer) -> None:
    with server.client() as owner, client_of(server, "acme", key="acme-key") as acme:
        split(owner, "mood", 100)
        try:
            for method in ("PUT", "DELETE"):
                body = {"json": {"candidates": {"2": 1}}} if method == "PUT" else {}
                answer = acme.request(method, "/v1/adapters/mood/aliases/live/split", **body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_adapter")
            assert acme.get("/v1/adapters/mood/events").status_code == 404
            owner.put("/v1/adapters/mood/sharing", json={"shared": True})
            assert ask(acme, "k")["version"] == 2
            answer = acme.put("/v1/adapters/mood/aliases/live/split", json={"candidates": {"2": 1}})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_owner")
            answer = acme.delete("/v1/adapters/mood/aliases/live/split")
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_owner")
        finally:
            owner.put("/v1/adapters/mood/sharing", json={"shared": False})
            owner.delete("/v1/adapters/mood/aliases/live/split")

"""The model `auto`: a selector adapter chooses the adapter of each text, and that adapter answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Refused
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings, SettingsError, read_settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter, peft_outputs, save_adapter
from tests.service.engine.generate.families import make_decoder
from tests.service.test_metrics import value
from tests.tenants import believe_headers, client_of

# The labels of the selector, by what becomes of a text that has one.
GOOD = ("mood", "tokens@live", "Second@1", "foundation")
BAD = {
    "ghost": "ghost",
    "not a reference!": "not a reference!",
    "router@1": "is the router itself",
    "auto": "is the router itself",
    "auto:router": "is the router itself",
    "talk": "generates text",
    "beta/hidden": "beta/hidden",
}
LABELS = (*GOOD, "none", *BAD)
_POOL = [
    f"{word} number {i}, {word}" for i in range(12) for word in ("parcel", "song", "rain", "x", "Ada", "tea")
]


@pytest.fixture(scope="module")
def selector(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    return save_adapter(
        foundation.folder,
        tmp_path_factory.mktemp("selector"),
        "SEQ_CLS",
        5,
        labels=150,
        target_modules="all-linear",
    )


@pytest.fixture(scope="module")
def texts(foundation: FoundationFiles, selector: PeftAdapter) -> dict[str, str]:
    """Return a text for each label: PEFT says which of the adapter's outputs is the largest for it."""
    winners: dict[int, str] = {}
    for text, scores in zip(_POOL, peft_outputs(foundation.folder, selector, _POOL), strict=True):
        winners.setdefault(int(scores.argmax()), text)
    assert len(winners) >= len(LABELS)
    selector.folder.joinpath("winners.json").write_text(json.dumps(list(winners)))
    return dict(zip(LABELS, winners.values(), strict=False))


@pytest.fixture(scope="module")
def named(selector: PeftAdapter, texts: dict[str, str]) -> str:
    """Return the selector's labels, as the field of an upload."""
    file = selector.folder.joinpath("winners.json")
    winners = dict(zip(json.loads(file.read_text()), LABELS, strict=False))
    file.unlink()
    return json.dumps([winners.get(i, f"unused-{i}") for i in range(selector.labels)])


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path],
    peft_saved: dict[str, PeftAdapter],
    selector: PeftAdapter,
    named: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    talk = make_decoder("llama", tmp_path_factory.mktemp("decoder") / "talk").folder
    settings = Settings(
        home=new_home(), demo=False, log_level="error", foundations=f"default,{talk}", router="Router"
    )
    adapters = {"mood": "first", "second": "second", "tokens": "tokens", "scalar": "scalar"}
    with run_server(settings, prepare=believe_headers) as running:
        with client_of(running, "default") as client:
            for name, saved in adapters.items():
                assert upload(client, name, peft_saved[saved].zip()).status_code == 201
            assert upload(client, "router", selector.zip(), labels=named).status_code == 201
        with client_of(running, "beta") as client:
            assert upload(client, "hidden", peft_saved["first"].zip()).status_code == 201
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with client_of(server, "default") as client:
        yield client


def ask(client: httpx.Client, inputs: Any, model: str = "auto", **fields: Any) -> Any:
    return client.post("/v1/predict", json={"model": model, "inputs": inputs, **fields})


def routed(client: httpx.Client, inputs: Any, model: str = "auto", **fields: Any) -> Mapping[str, Any]:
    answer = ask(client, inputs, model, **fields)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


def test_each_text_has_the_answer_of_the_two_calls_made_one_after_the_other(
    client: httpx.Client, texts: dict[str, str]
) -> None:
    asked = [texts[label] for label in (*GOOD, *reversed(GOOD))]
    answer = routed(client, asked)
    first = client.post("/v1/predict", json={"model": "router", "inputs": asked}).json()
    assert answer["selector"] == {"model": "router", "version": 1, "digest": first["digest"]}
    tokens = first["usage"]["prompt_tokens"]
    for text, label, chosen, prediction in zip(
        asked, first["predictions"], answer["routes"], answer["predictions"], strict=True
    ):
        assert (chosen["label"], chosen["score"]) == (label["label"], pytest.approx(label["score"], abs=1e-4))
        assert (chosen["model"], chosen["fallback"], chosen["error"]) == (label["label"], False, None)
        then = client.post("/v1/predict", json={"model": label["label"], "inputs": text}).json()
        assert {name: chosen[name] for name in ("version", "digest", "task")} == {
            name: then[name] for name in ("version", "digest", "task")
        }
        assert_close(prediction, then["predictions"][0])
        tokens += then["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens"] == tokens
    assert 0 < answer["timings"]["selector_ms"] <= answer["timings"]["total_ms"]


def assert_close(actual: Any, expected: Any) -> None:
    """Compare predictions: their numbers within the published tolerance, all else exactly."""
    if isinstance(expected, float):
        assert actual == pytest.approx(expected, abs=1e-4, rel=1e-4)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, one in expected.items():
            assert_close(actual[key], one)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for mine, one in zip(actual, expected, strict=True):
            assert_close(mine, one)
    else:
        assert actual == expected


def test_a_request_names_a_selector_of_its_choice(client: httpx.Client, texts: dict[str, str]) -> None:
    answer = routed(client, texts["mood"], "auto:router@1")
    assert (answer["model"], answer["selector"]["model"]) == ("auto:router@1", "router@1")
    assert answer["routes"][0]["model"] == "mood"
    assert ask(client, "x", "auto:nobody").json()["error"]["code"] == "unknown_adapter"
    assert ask(client, "x", "auto:").json()["error"]["code"] == "invalid_reference"


@pytest.mark.parametrize("label", BAD)
def test_a_label_that_no_adapter_can_answer_is_the_error_of_its_text_alone(
    label: str, client: httpx.Client, texts: dict[str, str]
) -> None:
    alone = ask(client, texts[label])
    error = alone.json()["error"]
    assert (alone.status_code, error["code"]) == (409, "invalid_route")
    assert "the selector 'router', version 1, routes to" in error["message"]
    assert BAD[label] in error["message"]
    together = routed(client, [texts[label], texts["mood"]])
    assert together["routes"][0]["error"] == error
    assert together["predictions"][0] is None
    assert together["routes"][1]["error"] is None
    assert together["predictions"][1]["label"]


def test_an_unsure_text_gets_an_error_that_says_why_or_the_fallback_s_answer(
    client: httpx.Client, texts: dict[str, str]
) -> None:
    for text, why, routing in (
        (texts["none"], "its label is 'none'", {}),
        (texts["mood"], "below the threshold 0.999", {"threshold": 0.999}),
    ):
        refused = ask(client, text, routing=routing)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_route")
        assert why in refused.json()["error"]["message"]
        answer = routed(client, [text], routing={**routing, "fallback": "tokens"})
        assert (answer["routes"][0]["model"], answer["routes"][0]["fallback"]) == ("tokens", True)
        assert answer["routes"][0]["task"] == "token-classification"
    assert ask(client, texts["none"], routing={"fallback": "ghost"}).json()["error"]["code"] == "invalid_route"
    for wrong in ({"threshold": 1.5}, {"threshold": "1"}, {"fallback": ""}, {"other": 1}, 3):
        assert ask(client, "x", routing=wrong).status_code == 422


def test_the_chosen_adapters_judge_parameters_task_and_inputs_under_the_request_s_numbers(
    client: httpx.Client, texts: dict[str, str]
) -> None:
    inputs = [texts["mood"], texts["tokens@live"]]
    routes = routed(client, inputs, parameters={"aggregation_strategy": "simple"})["routes"]
    assert (routes[0]["error"]["code"], routes[1]["error"]) == ("invalid_parameter", None)
    routes = routed(client, inputs, task="token-classification")["routes"]
    assert (routes[0]["error"]["code"], routes[0]["error"]["param"]) == ("wrong_task", "task")
    question = {"question": texts["tokens@live"], "context": "y"}
    routes = routed(client, [texts["mood"], question])["routes"]
    assert routes[1]["error"]["param"] == "inputs[1]"
    assert "inputs[1]" in routes[1]["error"]["message"]


@pytest.mark.parametrize("model", ["tokens", "foundation", "scalar", "talk"])
def test_a_selector_that_gives_no_label_is_refused(model: str, client: httpx.Client) -> None:
    answer = ask(client, "x", f"auto:{model}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_selector")
    assert "text-classification" in answer.json()["error"]["message"]


def test_labels_are_resolved_as_the_tenant_of_the_request_sees_them(
    server: RunningServer, client: httpx.Client, texts: dict[str, str], peft_saved: dict[str, PeftAdapter]
) -> None:
    with client_of(server, "beta") as beta:
        assert ask(beta, texts["mood"]).json()["error"]["code"] == "unknown_adapter"
        assert client.put("/v1/adapters/router/sharing", json={"shared": True}).status_code == 200
        hidden = ask(beta, texts["mood"])
        nobody = ask(beta, texts["ghost"])
        assert hidden.status_code == nobody.status_code == 409
        told = [one.json()["error"]["message"] for one in (hidden, nobody)]
        assert told[0].replace("'mood'", "'ghost'") == told[1]
        assert upload(beta, "mood", peft_saved["second"].zip()).status_code == 201
        own = beta.post("/v1/predict", json={"model": "mood", "inputs": "x"}).json()
        assert routed(beta, texts["mood"])["routes"][0]["digest"] == own["digest"]
        assert beta.get("/v1/models/auto").json()["root"] == "default/router"
    assert client.put("/v1/adapters/router/sharing", json={"shared": False}).status_code == 200


def test_the_router_is_a_model_that_other_routes_and_uploads_refuse_by_name(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    listed = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert listed["auto"] == client.get("/v1/models/auto").json()
    assert (listed["auto"]["root"], listed["auto"]["task"], listed["auto"]["tasks"]) == ("router", None, [])
    for path, body in (
        ("/v1/embeddings", {"model": "auto", "input": "x"}),
        ("/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/rerank", {"model": "auto", "query": "x", "documents": ["y"]}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 404, path
        assert "POST /v1/predict" in answer.json()["error"]["message"]
    fanned = client.post("/v1/predict", json={"models": ["auto", "mood"], "inputs": "x"}).json()["results"]
    assert (fanned[0]["error"]["code"], fanned[1]["task"]) == ("unknown_adapter", "text-classification")
    assert ask(client, "x", "mood", routing={}).json()["error"]["param"] == "routing"
    assert upload(client, "auto", peft_saved["first"].zip()).json()["error"]["code"] == "invalid_name"


def test_metrics_count_the_selector_and_the_chosen_adapter(server: RunningServer, texts: dict[str, str]) -> None:
    with server.client() as client:

        def counted(adapter: str) -> float:
            return value(client, "latency_seconds_count", adapter=adapter, stage="total")

        before = {name: counted(name) for name in ("router", "second")}
        routed(client, [texts["Second@1"], texts["Second@1"]])
        assert {name: counted(name) - before[name] for name in before} == {"router": 1, "second": 1}


def test_the_client_returns_the_chosen_adapter_s_results(server: RunningServer, texts: dict[str, str]) -> None:
    with Client(server.url) as client:
        mood, entities = client.predict("auto", [texts["mood"], texts["tokens@live"]])
        assert (mood.task, mood.version, entities.task) == ("text-classification", 1, "token-classification")
        with pytest.raises(Refused, match="ghost"):
            client.predict("auto", [texts["mood"], texts["ghost"]])
        answer = client.route([texts["mood"], texts["ghost"], texts["none"]], fallback="second")
        assert (answer.selector, answer.selector_version) == ("router", 1)
        assert [one.model for one in answer.routes] == ["mood", "ghost", "second"]
        assert [one.fallback for one in answer.routes] == [False, False, True]
        assert answer.routes[0].result == mood
        assert isinstance(answer.routes[1].error, Refused)
        assert client.route(texts["mood"], selector="router@1", top_k=2).routes[0].result.scores


def test_a_routed_answer_under_a_split_selector_states_its_versions_in_the_body_alone(
    client: httpx.Client, selector: PeftAdapter, named: str, texts: dict[str, str]
) -> None:
    for labels in (named, named.replace("unused-", "spare-")):
        assert upload(client, "chooser", selector.zip(), labels=labels).status_code == 201
    split = {"candidates": {"1": 50}}
    assert client.put("/v1/adapters/chooser/aliases/live", json={"version": 2}).status_code == 200
    assert client.put("/v1/adapters/chooser/aliases/live/split", json=split).status_code == 200
    try:
        alone = client.post("/v1/predict", json={"model": "chooser", "inputs": texts["mood"]})
        assert alone.headers["X-Model-Version"] == str(alone.json()["version"])
        answer = ask(client, [texts["mood"]], "auto:chooser")
        assert answer.json()["selector"]["version"] in (1, 2)
        assert answer.json()["routes"][0]["version"] == 1
        assert "X-Model-Version" not in answer.headers
        assert "X-Model-Digest" not in answer.headers
    finally:
        assert client.delete("/v1/adapters/chooser").is_success


def test_a_server_without_a_router_says_how_to_get_one(serve: Callable[..., RunningServer]) -> None:
    with serve(served_names="auto:old=foundation").client() as client:
        for answer in (ask(client, "x"), client.get("/v1/models/auto")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_router")
            assert "ROOTSTOCK_ROUTER" in answer.json()["error"]["message"]
        assert "auto" not in [one["id"] for one in client.get("/v1/models").json()["data"]]
        assert ask(client, "x", "auto:old").json()["task"] == "feature-extraction"


@pytest.mark.parametrize("reference", ["auto:auto", "auto:AUTO:router", "auto:" * 1200])
def test_a_router_as_the_selector_of_a_router_is_no_model(client: httpx.Client, reference: str) -> None:
    answer = client.get(f"/v1/models/{reference}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_adapter")
    assert "is the router itself" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("router", "a b"), ("router", "foundation"), ("router", "auto"), ("router", "Auto"),
        ("router_fallback", "a@"), ("router_fallback", "auto"), ("router_threshold", 1.1),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_the_router_is_refused_at_start(setting: str, wrong: Any) -> None:
    with pytest.raises(SettingsError, match="ROOTSTOCK_ROUTER"):
        read_settings(**{setting: wrong})

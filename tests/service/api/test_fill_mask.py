"""fill-mask over HTTP, against transformers' pipeline on the same checkpoint; what has no such head says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.live_server import run_server, upload
from tests.masked_lm import home_of, make_filling, pipeline_of
from tests.parity.foundations import Tiny
from tests.peft_adapters import PeftAdapter, save_adapter

TEXTS = [
    "Where is my [MASK]? It was due on Monday.",
    "The [MASK] sound dull, and the left ear cup broke within a [MASK] of use.",
    "[MASK]",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_filling(tmp_path_factory.mktemp("filling") / "model")


@pytest.fixture(scope="module")
def scored(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    return save_adapter(tiny.folder, tmp_path_factory.mktemp("scored"), "SEQ_CLS", 3, labels=3, r=4)


@pytest.fixture(scope="module", params=["onnx", "torch"])
def filling(
    request: pytest.FixtureRequest, tiny: Tiny, scored: PeftAdapter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server on a foundation that fills masks, with one adapter."""
    home = home_of(tiny, tmp_path_factory.mktemp("home"))
    settings = Settings(
        home=home, foundation=str(tiny.folder), runner=request.param, demo=False, log_level="error", threads=1
    )
    with run_server(settings) as running, running.client() as client:
        assert upload(client, "scored", scored.zip()).status_code == 201
        yield client


def fill(client: httpx.Client, inputs: Any, **parameters: Any) -> Any:
    body = {"model": "foundation", "task": "fill-mask", "inputs": inputs, "parameters": parameters}
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: httpx.Client, body: dict[str, Any], code: str, param: str, *said: str) -> None:
    answer = client.post("/v1/predict", json={"inputs": "[MASK]", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, code, param)
    for words in said:
        assert words in error["message"]


@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": 2}, {"targets": ["parcel", "Shoes", "week"]}, {"targets": "order", "top_k": 3}]
)
def test_masks_are_filled_as_the_pipeline_does(
    filling: httpx.Client, tiny: Tiny, parameters: dict[str, Any]
) -> None:
    pipeline = pipeline_of(tiny.folder)
    answer = fill(filling, TEXTS, **parameters)
    flat = [answer["predictions"][0], *answer["predictions"][1], answer["predictions"][2]]
    theirs = [pipeline(text, **parameters) for text in TEXTS]
    for ours, wanted in zip(flat, [theirs[0], *theirs[1], theirs[2]], strict=True):
        assert ours == [{**one, "score": pytest.approx(one["score"], rel=1e-3, abs=1e-6)} for one in wanted]
    assert answer["usage"]["prompt_tokens"] == sum(len(pipeline.tokenizer(t)["input_ids"]) for t in TEXTS)


def test_the_answer_names_the_head_and_the_foundation_embeds_as_before(filling: httpx.Client, tiny: Tiny) -> None:
    assert tiny.spec.masked_lm is not None
    answer = fill(filling, TEXTS[0])
    assert (answer["model"], answer["version"], answer["task"]) == ("foundation", None, "fill-mask")
    assert answer["digest"] == tiny.spec.masked_lm.digest
    for body in ({}, {"task": "feature-extraction"}):
        plain = filling.post("/v1/predict", json={"model": "foundation", "inputs": "ok", **body}).json()
        assert (plain["digest"], plain["task"]) == (tiny.spec.fingerprint, "feature-extraction")
        assert len(plain["predictions"][0]) == 32


def test_a_fan_out_answers_for_the_models_that_have_the_task(filling: httpx.Client) -> None:
    body = {"models": ["scored", "foundation"], "inputs": TEXTS[0]}
    scored, filled = filling.post("/v1/predict", json={**body, "task": "fill-mask"}).json()["results"]
    assert (scored["error"]["code"], scored["error"]["param"]) == ("wrong_task", "task")
    assert filled["predictions"] == fill(filling, TEXTS[0])["predictions"]
    scored, embedded = filling.post("/v1/predict", json=body).json()["results"]
    assert (scored["task"], embedded["task"]) == ("text-classification", "feature-extraction")


def test_a_task_that_the_reference_does_not_answer_is_refused_with_both_names(
    filling: httpx.Client, client: httpx.Client
) -> None:
    both = "model 'foundation' supports feature-extraction and fill-mask, not text-ranking"
    refused(filling, {"model": "foundation", "task": "text-ranking"}, "wrong_task", "task", both)
    both = "model 'scored' supports text-classification, not fill-mask; choose a foundation"
    refused(filling, {"model": "scored", "task": "fill-mask"}, "wrong_task", "task", both)
    given = {"model": "scored", "task": "text-classification", "inputs": "ok"}
    assert filling.post("/v1/predict", json=given).status_code == 200
    # The default foundation's checkpoint has no such head.
    both = "model 'foundation' supports feature-extraction, not fill-mask"
    lacks = "has no masked-language-model head"
    refused(client, {"model": "foundation", "task": "fill-mask"}, "wrong_task", "task", both, lacks)
    unknown = client.post("/v1/predict", json={"model": "nobody", "task": "fill-mask", "inputs": "[MASK]"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_adapter")


def test_what_cannot_be_filled_is_refused_by_its_place(filling: httpx.Client) -> None:
    asked = {"model": "foundation", "task": "fill-mask"}
    refused(filling, {**asked, "inputs": ["[MASK]", "nothing"]}, "invalid_input", "inputs", "[MASK]")
    refused(filling, {**asked, "inputs": {"text": "[MASK]", "text_pair": "b"}}, "invalid_input", "inputs[0]")
    refused(
        filling,
        {**asked, "parameters": {"targets": ["week", "zzqx"]}},
        "invalid_parameter",
        "parameters.targets",
        "'zzqx'",
    )
    refused(
        filling,
        {**asked, "parameters": {"function_to_apply": "none"}},
        "invalid_parameter",
        "parameters.function_to_apply",
    )


def test_the_masks_of_a_request_are_at_most_as_many_as_its_inputs(filling: httpx.Client) -> None:
    body = {"model": "foundation", "task": "fill-mask", "inputs": ["[MASK] " * 43] * 6}
    answer = filling.post("/v1/predict", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert len(fill(filling, ["[MASK] " * 43] * 5, top_k=1)["predictions"][4]) == 43


def test_models_and_limits_state_the_foundation_s_own_tasks(filling: httpx.Client, client: httpx.Client) -> None:
    for server, own in ((filling, ["feature-extraction", "fill-mask"]), (client, ["feature-extraction"])):
        models = {model["id"]: model for model in server.get("/v1/models").json()["data"]}
        assert (models["foundation"]["task"], models["foundation"]["tasks"]) == (own[0], own)
        limits = server.get("/v1/limits").json()
        assert limits["foundation"]["tasks"] == own
        assert "fill-mask" not in limits["tasks"], "no adapter can be uploaded for it"
    models = {model["id"]: model for model in filling.get("/v1/models").json()["data"]}
    assert models["scored"]["tasks"] == ["text-classification"]


def test_an_adapter_for_the_task_is_refused(filling: httpx.Client, scored: PeftAdapter) -> None:
    answer = upload(filling, "filler", scored.zip(), task="fill-mask")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "rejected_schema", "task")
    assert "'fill-mask' is not served on" in error["message"]
    assert "by an adapter: it is the foundation's own" in error["message"]

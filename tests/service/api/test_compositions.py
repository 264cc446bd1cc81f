"""Compositions over HTTP: the answers of PEFT's "cat" on three routes, exact versions, and a clear refusal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.references.composed_model import GivenPart
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import CLASSES, TEXTS, PeftAdapter, merged, peft_model, save_adapter, tokenizer_of
from tests.peft_composition import peft_composition
from tests.service.engine.generate.families import TinyDecoder, make_decoder
from tests.tenants import believe_headers, client_of

LABELS = '["good", "bad", "mixed"]'
PAIR = [{"model": "first", "weight": 0.7}, {"model": "second@1", "weight": -0.4}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def texts(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    root = tmp_path_factory.mktemp("texts")
    return [
        save_adapter(tiny.folder, root / str(i), "CAUSAL_LM", i, r=4, target_modules="all-linear")
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def judge(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    """A classifier on the foundation that generates."""
    folder = tmp_path_factory.mktemp("judge")
    return save_adapter(tiny.folder, folder / "judge", "SEQ_CLS", 5, r=2, target_modules="all-linear")


@pytest.fixture(scope="module")
def embedders(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    root = tmp_path_factory.mktemp("embedders")
    return [
        save_adapter(foundation.folder, root / str(i), "FEATURE_EXTRACTION", 40 + i, labels=0, r=2 + i)
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def server(
    new_home: Any,
    tiny: TinyDecoder,
    texts: list[PeftAdapter],
    judge: PeftAdapter,
    embedders: list[PeftAdapter],
    peft_saved: dict[str, PeftAdapter],
    foundation: FoundationFiles,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("others")
    dora = save_adapter(foundation.folder, folder / "dora", "SEQ_CLS", 8, use_dora=True)
    ia3 = save_adapter(foundation.folder, folder / "ia3", "SEQ_CLS", 9, kind="IA3")
    settings = Settings(
        home=new_home(),
        foundations=f"default,{tiny.folder}",
        demo=False,
        log_level="error",
        max_rank=16,
        threads=1,
    )
    with run_server(settings, prepare=believe_headers) as running, ExitStack() as stack:
        client = stack.enter_context(running.client())
        other = stack.enter_context(client_of(running, "acme"))
        uploads = [
            upload(client, "first", peft_saved["first"].zip(), labels=LABELS),
            upload(client, "second", peft_saved["second"].zip(), labels=LABELS),
            upload(client, "tokens", peft_saved["tokens"].zip()),
            upload(client, "dora", dora.zip()),
            upload(client, "ia3", ia3.zip()),
            upload(other, "secret", peft_saved["first"].zip()),
            *(upload(client, f"embedder{i}", one.zip()) for i, one in enumerate(embedders)),
            upload(client, "judge", judge.zip(), foundation="tiny-chat"),
            *(upload(client, f"text{i}", one.zip(), foundation="tiny-chat") for i, one in enumerate(texts)),
        ]
        for answer in uploads:
            assert answer.status_code == 201, answer.text
        yield running


def _ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/predict", json={"inputs": TEXTS, "parameters": {"top_k": None}, **body})


def _scores(answer: httpx.Response) -> list[dict[str, float]]:
    assert answer.status_code == 200, answer.text
    return [{one["label"]: one["score"] for one in scores} for scores in answer.json()["predictions"]]


def test_predict_answers_as_pefts_cat_and_names_the_versions_of_the_parts(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter], foundation: FoundationFiles
) -> None:
    answer = _ask(client, adapters=PAIR)
    parts = [(peft_saved["first"], 0.7), (peft_saved["second"], -0.4)]
    model, tokenizer = peft_composition(foundation.folder, parts), tokenizer_of(foundation.folder)
    for text, scores in zip(TEXTS, _scores(answer), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0).numpy()
        np.testing.assert_allclose([scores[name] for name in ("good", "bad", "mixed")], expected, atol=1e-4)
    body = answer.json()
    digests = {name: _ask(client, model=name).json()["digest"] for name in ("first", "second")}
    assert body["adapters"] == [
        {"model": "first", "version": 1, "digest": digests["first"], "weight": 0.7, "head": True},
        {"model": "second@1", "version": 1, "digest": digests["second"], "weight": -0.4, "head": False},
    ]
    assert (body["model"], body["version"]) == ("0.7*first@1+-0.4*second@1", None)
    assert body["digest"] not in digests.values()
    assert "adapters" not in _ask(client, model="first").json()


def test_one_part_of_weight_1_is_the_adapter_itself_of_any_kind(client: httpx.Client) -> None:
    for name in ("first", "dora", "ia3"):
        alone, composed = _ask(client, model=name), _ask(client, adapters=[{"model": name}])
        assert composed.json()["digest"] == alone.json()["digest"]
        assert composed.json()["predictions"] == alone.json()["predictions"]


def test_the_named_head_answers_and_by_default_the_first_whose_task_has_one(client: httpx.Client) -> None:
    parts = [{"model": "embedder0"}, {"model": "tokens"}, {"model": "first"}]
    asked = {"inputs": TEXTS[0], "adapters": parts}
    tasks = {
        head: client.post("/v1/predict", json={**asked, **({"head": head} if head else {})}).json()["task"]
        for head in (None, "embedder0", "tokens", "first")
    }
    assert tasks == {
        None: "token-classification",
        "embedder0": "feature-extraction",
        "tokens": "token-classification",
        "first": "text-classification",
    }


def test_embeddings_are_those_of_pefts_cat_in_every_part_of_a_long_request(
    client: httpx.Client, embedders: list[PeftAdapter], foundation: FoundationFiles
) -> None:
    weights = (0.5, 1.5)
    adapters = [{"model": f"embedder{i}", "weight": weight} for i, weight in enumerate(weights)]
    # More texts than one call of the engine takes.
    answer = client.post("/v1/embeddings", json={"adapters": adapters, "input": TEXTS * 70})
    assert answer.status_code == 200, answer.text
    assert [part["model"] for part in answer.json()["adapters"]] == ["embedder0", "embedder1"]
    model = peft_composition(foundation.folder, list(zip(embedders, weights, strict=True)))
    tokenizer = tokenizer_of(foundation.folder)
    vectors = [np.asarray(one["embedding"]) for one in answer.json()["data"]]
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            vector = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        for actual in (vectors[i], vectors[i + len(vectors) - len(TEXTS)]):
            np.testing.assert_allclose(
                actual / np.linalg.norm(actual), vector / np.linalg.norm(vector), atol=1e-4
            )


def test_a_classifier_and_an_adapter_that_generates_answer_on_the_route_of_the_head(
    client: httpx.Client, tiny: TinyDecoder, texts: list[PeftAdapter], judge: PeftAdapter
) -> None:
    adapters = [{"model": "text0", "weight": 0.5}, {"model": "judge"}]
    answer = _ask(client, adapters=adapters)
    # PEFT loads no adapter of one task beside one of another, but it merges each.
    model = merged(tiny.folder, judge)
    plain = CLASSES["CAUSAL_LM"].from_pretrained(tiny.folder).state_dict()
    changed = peft_model(tiny.folder, texts[0]).merge_and_unload().state_dict()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in plain:
                weight += 0.5 * (changed[name] - plain[name])
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    for text, scores in zip(TEXTS, _scores(answer), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0).numpy()
        np.testing.assert_allclose([scores[f"LABEL_{i}"] for i in range(3)], expected, atol=1e-4)
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "adapters": adapters}
    assert client.post("/v1/chat/completions", json=chat).json()["error"]["code"] == "wrong_task"
    assert client.post("/v1/chat/completions", json={**chat, "head": "text0"}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_chats_and_completions_are_those_of_pefts_cat(
    client: httpx.Client, tiny: TinyDecoder, texts: list[PeftAdapter], stream: bool
) -> None:
    adapters = [{"model": "text0", "weight": 0.5}, {"model": "text1", "weight": 1.5}]
    messages = [{"role": "user", "content": "Where is my parcel?"}]
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    model = peft_composition(tiny.folder, [(texts[0], 0.5), (texts[1], 1.5)])
    asked = {"adapters": adapters, "temperature": 0, "max_tokens": 8, "ignore_eos": True, "stream": stream}
    chat = client.post("/v1/chat/completions", json={**asked, "messages": messages})
    completed = client.post("/v1/completions", json={**asked, "prompt": TEXTS[0]})
    prompts = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False),
        tokenizer(TEXTS[0])["input_ids"],
    ]
    for answer, prompt in zip((chat, completed), prompts, strict=True):
        assert answer.status_code == 200, answer.text
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=8,
                min_new_tokens=8,
                do_sample=False,
                pad_token_id=0,
            )
        if stream:
            assert '"adapters":[{"model":"text0","version":1,' in answer.text
            continue
        choice = answer.json()["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        # A character that is not complete is shown by one of the two alone.
        expected = tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True)
        assert text.rstrip("\ufffd") == expected.rstrip("\ufffd")
        assert [part["weight"] for part in answer.json()["adapters"]] == [0.5, 1.5]


def test_each_part_follows_its_alias_and_its_split(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    moved = [upload(client, "moving", peft_saved[name].zip()) for name in ("first", "second")]
    assert [answer.status_code for answer in moved] == [201, 201]
    parts = [{"model": "moving"}, {"model": "moving@1", "weight": 0.5}]
    answer = _ask(client, adapters=parts)
    assert [part["version"] for part in answer.json()["adapters"]] == [2, 1]
    split = client.put("/v1/adapters/moving/aliases/live/split", json={"candidates": {"1": 100}})
    assert split.status_code == 200, split.text
    answer = _ask(client, adapters=parts)
    assert [part["version"] for part in answer.json()["adapters"]] == [1, 1]
    assert "x-model-version" not in answer.headers
    client.delete("/v1/adapters/moving")
    assert _ask(client, adapters=parts).json()["error"]["param"] == "adapters[0].model"


def test_a_part_that_is_deleted_after_it_was_resolved_is_unknown(
    server: RunningServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "leaving", peft_saved["second"].zip()).status_code == 201
    foundations = server.app.state.server.foundations
    parts = [GivenPart("first", 1.0), GivenPart("leaving", 0.5)]
    composed = foundations.directory.compose(parts, None, "")
    assert client.delete("/v1/adapters/leaving").is_success
    with pytest.raises(AdapterError) as refused:
        asyncio.run(foundations.predict(composed, TEXTS, {}))
    asked = {"adapters": [{"model": part.reference, "weight": part.weight} for part in parts]}
    error = _ask(client, **asked).json()["error"]
    assert (refused.value.code, refused.value.param) == (error["code"], error["param"])
    assert error["param"] == "adapters[1].model"


def test_the_parts_are_resolved_after_the_inputs_are_read_as_a_model_is(client: httpx.Client) -> None:
    inputs = [{"image": "data:image/png;base64,?"}]
    by_model = _ask(client, inputs=inputs, model="nobody")
    by_parts = _ask(client, inputs=inputs, adapters=[{"model": "nobody"}])
    assert by_model.status_code == by_parts.status_code == 422
    assert by_model.json()["error"]["param"] == by_parts.json()["error"]["param"] == "inputs[0].image"


def test_a_part_of_another_tenant_does_not_exist(server: RunningServer) -> None:
    with server.client() as client, client_of(server, "acme") as acme:
        mine = _ask(acme, adapters=[{"model": "secret", "weight": 0.5}])
        assert mine.status_code == 200, mine.text
        for name in ("secret", "acme/secret"):
            theirs = _ask(client, adapters=[{"model": "first"}, {"model": name}])
            nobody = _ask(client, adapters=[{"model": "first"}, {"model": name.replace("secret", "nobody")}])
            assert theirs.status_code == nobody.status_code == 404
            assert theirs.text.replace("secret", "nobody") == nobody.text


def test_metrics_count_compositions_under_one_label_and_each_part_by_name(client: httpx.Client) -> None:
    for i in range(8):
        assert _ask(client, adapters=[{"model": "first", "weight": i / 8}, {"model": "second"}]).is_success
    lines = client.get("/metrics").text.splitlines()
    labels = {line.partition("{")[2].partition(",")[0] for line in lines if line.startswith("rootstock_latency")}
    assert 'adapter="(composition)"' in labels
    assert len(labels) <= 21
    counted = [line for line in lines if line.startswith('rootstock_composed_answers_total{adapter="second"}')]
    assert float(counted[0].split()[-1]) >= 8


def test_a_form_with_a_file_takes_the_parts_as_json(client: httpx.Client) -> None:
    files = {"file": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")}
    parts = '[{"model": "first"}, {"model": "second"}]'
    answer = client.post("/v1/predict", data={"adapters": parts, "head": "second"}, files=files)
    assert answer.status_code == 422
    assert "the model takes a text" in answer.json()["error"]["message"]


def test_the_path_of_hugging_faces_form_and_parts_exclude_each_other(client: httpx.Client) -> None:
    body = {"adapters": [{"model": "text0"}], "messages": [{"role": "user", "content": "hi"}]}
    answer = client.post("/models/tiny-chat/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "adapters")


ONE = [{"model": "first"}]
BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({}, 422, "model", "is missing"),
    ({"model": "first", "adapters": ONE}, 422, "adapters", "both model and adapters"),
    ({"models": ["first"], "adapters": ONE}, 422, "adapters", "both models and adapters"),
    ({"model": "first", "models": ["first"]}, 422, "models", "both model and models"),
    ({"model": "first", "head": "first"}, 422, "head", "the body has none"),
    ({"adapters": []}, 422, "adapters", "at least 1"),
    ({"adapters": ONE * 17}, 422, "adapters", "at most 16"),
    ({"adapters": "first"}, 422, "adapters", "list"),
    ({"adapters": {"model": "first"}}, 422, "adapters", "list"),
    ({"adapters": ["first"]}, 422, "adapters.0", "dictionary|object"),
    ({"adapters": [{}]}, 422, "adapters.0.model", "required"),
    ({"adapters": [{"model": None}]}, 422, "adapters.0.model", "string"),
    ({"adapters": [{"model": "first", "wait": 1}]}, 422, "adapters.0.wait", "not permitted"),
    ({"adapters": [{"model": "first", "weight": "1"}]}, 422, "adapters.0.weight", "number"),
    ({"adapters": [{"model": "first", "weight": True}]}, 422, "adapters.0.weight", "number"),
    ({"adapters": [{"model": "first", "weight": None}]}, 422, "adapters.0.weight", "number"),
    ({"adapters": [{"model": "first", "weight": 10.5}]}, 422, "adapters.0.weight", "less than or equal to 10"),
    ({"adapters": [{"model": "first", "weight": -1e308}]}, 422, "adapters.0.weight", "greater than or equal"),
    ({"adapters": [*ONE, {"model": ""}]}, 422, "adapters[1].model", "not a name"),
    ({"adapters": [*ONE, {"model": "x" * 9999}]}, 422, "adapters[1].model", "reference"),
    ({"adapters": [*ONE, {"model": "nobody"}]}, 404, "adapters[1].model", "nobody"),
    ({"adapters": [*ONE, {"model": "second@9"}]}, 404, "adapters[1].model", "9"),
    ({"adapters": [*ONE, {"model": "second@none"}]}, 404, "adapters[1].model", "none"),
    ({"adapters": [*ONE, {"model": "foundation"}]}, 422, "adapters[1].model", "is a foundation"),
    ({"adapters": [*ONE, {"model": "text0"}]}, 422, "adapters", "of the foundations"),
    ({"adapters": ONE, "head": "second"}, 422, "head", "no model of adapters"),
    ({"adapters": [*ONE, {"model": "dora"}]}, 422, "adapters[1]", "of the kind DoRA"),
    ({"adapters": [{"model": "ia3", "weight": 0.5}]}, 422, "adapters[0]", "of the kind IA3"),
    ({"adapters": [{"model": "second"}] * 3}, 422, "adapters", "rank 24 together .* ROOTSTOCK_MAX_RANK"),
    ({"adapters": PAIR, "task": "fill-mask"}, 422, "task", "not fill-mask"),
    ({"adapters": PAIR, "parameters": {"calibrated": True}}, 422, "parameters.calibrated", "calibration"),
    ({"adapters": [{"model": "text0"}, {"model": "text1"}]}, 422, "adapters", "/v1/chat/completions"),
]


@pytest.mark.parametrize(("body", "status", "param", "message"), BAD)
def test_a_bad_composition_is_refused_with_the_field_at_fault(
    client: httpx.Client, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = client.post("/v1/predict", json={"inputs": "x", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert re.search(message, error["message"]), error["message"]


def test_other_routes_refuse_compositions_of_another_task(client: httpx.Client) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    for path, body, param in (
        ("/v1/embeddings", {"adapters": PAIR, "input": "x"}, "adapters"),
        ("/v1/embeddings", {"adapters": [{"model": "text0"}], "input": "x"}, "adapters"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        ("/v1/chat/completions", {"adapters": PAIR, **chat}, "adapters"),
        ("/v1/chat/completions", {"adapters": ONE, "model": "text0", **chat}, "adapters"),
        ("/v1/chat/completions", chat, "model"),
        ("/v1/completions", {"adapters": PAIR, "prompt": "x"}, "adapters"),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text

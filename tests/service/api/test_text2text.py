"""POST /v1/completions on an encoder–decoder foundation, by the openai client, against PEFT's `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoTokenizer

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.bundle.golden import Golden
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.rewriters import TinyRewriter, make_adapters, make_rewriter
from tests.service.generating_server import run_decoder_server

TEXT = "Ada Lovelace met Charles Babbage in London in June 1833, at a party in Dorset Street."
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 10}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter("bart", tmp_path_factory.mktemp("bart") / "tiny-bart")


@pytest.fixture(scope="module")
def saved(tiny: TinyRewriter, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def server(
    tiny: TinyRewriter, saved: list[PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder, saved) as running:
        yield running


def _ids(tiny: TinyRewriter) -> list[int]:
    ids: list[int] = AutoTokenizer.from_pretrained(tiny.folder).encode(TEXT)
    return ids


def _expected(tiny: TinyRewriter, saved: PeftAdapter | None) -> str:
    tokens = tiny.greedy(saved, _ids(tiny), 10)
    text: str = AutoTokenizer.from_pretrained(tiny.folder).decode(tokens, skip_special_tokens=True)
    return text


def test_texts_under_many_adapters_at_once_are_rewritten_as_peft_rewrites_each(
    api: openai.OpenAI, tiny: TinyRewriter, saved: list[PeftAdapter]
) -> None:
    models = ["foundation", *(f"a{i}" for i in range(len(saved)))] * 3

    def ask(model: str) -> str:
        answer = api.completions.create(model=model, prompt=TEXT, **GREEDY)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(_ids(tiny))
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].text

    with ThreadPoolExecutor(len(models)) as threads:
        answers = list(threads.map(ask, models))
    expected = {"foundation": _expected(tiny, None)}
    expected |= {f"a{i}": _expected(tiny, one) for i, one in enumerate(saved)}
    for model, answer in zip(models, answers, strict=True):
        assert answer.rstrip("\ufffd") == expected[model].rstrip("\ufffd"), model


def test_a_stream_and_the_text_s_tokens_give_the_same_answer(api: openai.OpenAI, tiny: TinyRewriter) -> None:
    whole = api.completions.create(model="a1", prompt=TEXT, **GREEDY)
    by_ids = api.completions.create(model="a1", prompt=_ids(tiny), **GREEDY)
    parts = api.completions.create(model="a1", prompt=TEXT, stream=True, **GREEDY)
    assert whole.choices[0].text == by_ids.choices[0].text == "".join(part.choices[0].text for part in parts)


@pytest.mark.calls("huggingface_hub", "summarization")
@pytest.mark.calls("huggingface_hub", "translation")
def test_the_hub_s_client_summarises_and_translates_as_peft_does(
    server: RunningServer, tiny: TinyRewriter, saved: list[PeftAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests otherwise forbid the hub's client to send requests; all go to the server.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    expected = _expected(tiny, saved[1]).rstrip("\ufffd")
    address = f"{server.url}/models/a1/pipeline"
    ten = {"max_new_tokens": 10}
    summary = InferenceClient(f"{address}/summarization").summarization(TEXT, generate_parameters=ten)
    assert summary.summary_text.rstrip("\ufffd") == expected
    translation = InferenceClient(f"{address}/translation").translation(TEXT, generate_parameters=ten)
    assert translation.translation_text.rstrip("\ufffd") == expected
    with pytest.raises(HfHubHTTPError, match="src_lang"):
        InferenceClient(f"{address}/translation").translation(TEXT, src_lang="en", tgt_lang="fr")


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"generate_parameters": {"max_new_tokens": 0}}, "parameters.generate_parameters.max_new_tokens"),
        ({"generate_parameters": {"num_beams": 4}}, "parameters.generate_parameters.num_beams"),
        ({"generate_parameters": 3}, "parameters.generate_parameters"),
        ({"max_new_tokens": 3}, "parameters.max_new_tokens"),
        ({"truncation": "longest_first"}, "parameters.truncation"),
        ({"clean_up_tokenization_spaces": True}, "parameters.clean_up_tokenization_spaces"),
    ],
)
def test_a_summary_that_cannot_be_made_so_is_refused_by_its_field(
    client: httpx.Client, parameters: dict[str, Any], param: str
) -> None:
    body = {"inputs": TEXT, "parameters": parameters}
    answer = client.post("/models/a1/pipeline/summarization", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    streamed = client.post("/models/a1/pipeline/summarization", json={"inputs": TEXT, "stream": True})
    assert (streamed.status_code, streamed.json()["error"]["param"]) == (422, "stream")


def _bundle(tiny: TinyRewriter, saved: PeftAdapter, wrong: int | None = None) -> bytes:
    """Return a bundle with a golden set: PEFT's greedy tokens and their log-probabilities."""
    ids = _ids(tiny)
    tokens = tiny.greedy(saved, ids, 9)
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor([ids]), "decoder_input_ids": torch.tensor([[2, *tokens[:-1]]])}
        scores = peft_model(tiny.folder, saved)(**inputs).logits[0].log_softmax(-1)
    rows = [[token, float(scores[i, token])] for i, token in enumerate(tokens)]
    if wrong is not None:
        rows[wrong][0] += 1
    plain = open_bundle(saved.zip(), Limits(), tiny.spec)
    golden = Golden((TEXT,), (np.asarray(rows, np.float32),))
    return write_bundle(plain.manifest, {**plain.files, GOLDEN: golden.to_bytes()}).to_zip()


def test_the_golden_tokens_of_a_bundle_are_replayed(
    client: httpx.Client, tiny: TinyRewriter, saved: list[PeftAdapter]
) -> None:
    published = upload(client, "golden", _bundle(tiny, saved[3]))
    assert published.status_code == 201, published.text
    assert published.json()["verification"]["golden"] == "passed"
    refused = upload(client, "wrong", _bundle(tiny, saved[3], wrong=4))
    assert refused.status_code == 422
    assert "outputs[0][4]" in refused.json()["error"]["message"]


def test_the_models_and_limits_name_the_task(client: httpx.Client) -> None:
    models = {model["id"]: model["tasks"] for model in client.get("/v1/models").json()["data"]}
    assert models["foundation"] == models["a0"] == ["text2text-generation"]
    limits = client.get("/v1/limits").json()
    assert limits["tasks"] == ["text2text-generation"]
    assert limits["foundation"]["model_type"] == "bart"
    assert "/v1/completions" in client.get("/").json()["example"]


def test_a_chat_and_an_input_of_one_pass_are_refused_and_the_message_names_the_route(
    client: httpx.Client,
) -> None:
    chat = {"model": "a0", "messages": [{"role": "user", "content": TEXT}]}
    one_pass = {"model": "a0", "inputs": TEXT}
    for route, body in (("chat/completions", chat), ("predict", one_pass)):
        answer = client.post(f"/v1/{route}", json=body)
        assert answer.status_code == 422
        message = answer.json()["error"]["message"]
        assert "/v1/completions" in message
        assert "/v1/chat" not in message


def test_a_text_longer_than_the_context_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json={"model": "a0", "prompt": "a " * 300})
    assert answer.status_code == 422
    assert "the limit is 128" in answer.json()["error"]["message"]


def test_a_structure_is_refused_because_the_checkpoint_s_rules_may_contradict_it(client: httpx.Client) -> None:
    body = {"model": "a0", "prompt": TEXT, "response_format": {"type": "json_object"}}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "response_format"
    assert "has an encoder" in answer.json()["error"]["message"]

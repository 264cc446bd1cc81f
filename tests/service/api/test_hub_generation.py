"""Generated text in the form of Hugging Face's inference API, called by huggingface_hub's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from transformers import AutoTokenizer

from tests.live_server import RunningServer
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder
from tests.service.generating_server import run_decoder_server

PROMPT = "Where is my parcel?"


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client send requests, which tests otherwise forbid it; all go to the server."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))[:1]


@pytest.fixture(scope="module")
def server(
    tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder, saved) as running:
        yield running


@pytest.fixture(scope="module")
def hub(server: RunningServer) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/models/a0")


@pytest.mark.calls("huggingface_hub", "text_generation")
def test_text_is_continued_as_peft_continues_it(
    hub: InferenceClient, tiny: TinyDecoder, saved: list[PeftAdapter]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    expected = tokenizer.decode(tiny.greedy(saved[0], tokenizer(PROMPT).input_ids, 8), skip_special_tokens=True)
    assert hub.text_generation(PROMPT, max_new_tokens=8) == expected
    assert hub.text_generation(PROMPT, max_new_tokens=8, return_full_text=True) == PROMPT + expected
    assert "".join(hub.text_generation(PROMPT, max_new_tokens=8, stream=True)) == expected
    detailed = hub.text_generation(PROMPT, max_new_tokens=8, details=True)
    assert detailed.details is not None
    assert detailed.details.generated_tokens == len(detailed.details.tokens)
    assert all(token.logprob <= 0 for token in detailed.details.tokens)
    *_, last = hub.text_generation(PROMPT, max_new_tokens=8, stream=True, details=True)
    assert last.generated_text == expected
    assert last.details is not None
    assert last.details.generated_tokens == detailed.details.generated_tokens


def test_a_seed_repeats_a_sampled_text(hub: InferenceClient) -> None:
    first, second, other = (
        hub.text_generation(PROMPT, max_new_tokens=12, do_sample=True, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != other


@pytest.mark.calls("huggingface_hub", "chat_completion")
def test_a_chat_is_answered_by_the_model_in_the_path(hub: InferenceClient, server: RunningServer) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    answer = hub.chat_completion(messages, max_tokens=8, temperature=0)
    with server.client() as client:
        body = {"model": "a0", "messages": messages, "max_tokens": 8, "temperature": 0}
        native = client.post("/v1/chat/completions", json=body).json()
    assert answer.model == "a0"
    assert answer.choices[0].message.content == native["choices"][0]["message"]["content"]
    pieces = hub.chat_completion(messages, max_tokens=8, temperature=0, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == native["choices"][0]["message"]["content"]


def test_the_path_s_model_continues_a_text_in_openai_s_form(server: RunningServer) -> None:
    body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    with server.client() as client:
        answer = client.post("/models/a0/v1/completions", json={"model": "ignored", **body}).json()
        native = client.post("/v1/completions", json={"model": "a0", **body}).json()
    assert (answer["choices"], answer["model"]) == (native["choices"], "a0")


def test_a_stream_ends_with_its_last_token_as_in_text_generation_inference(server: RunningServer) -> None:
    with server.client() as client:
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4}, "stream": True}
        *_, last = client.post("/models/a0", json=body).text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data:"))["details"]["generated_tokens"] == 4


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"inputs": ["a", "b"]}, 422, "inputs"),
        ({"inputs": {"text": "a"}}, 422, "inputs"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 0}}, 422, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "x"}}, 422, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"temperature": 3}}, 422, "parameters.temperature"),
        ({"inputs": "a", "parameters": {"top_p": 2}}, 422, "parameters.top_p"),
        ({"inputs": "a", "parameters": {"watermark": True}}, 422, "parameters.watermark"),
        ({"inputs": "a", "parameters": {"typical_p": 0.95}}, 422, "parameters.typical_p"),
        ({"inputs": "a", "parameters": {"truncate": 3}}, 422, "parameters.truncate"),
        ({"inputs": "a", "parameters": {"best_of": 2}}, 422, "parameters.best_of"),
        ({"inputs": "a", "parameters": {"stop": "x"}}, 422, "parameters.stop"),
        ({"inputs": "a", "parameters": {"stop": [""]}}, 422, "parameters.stop"),
        ({"inputs": "a", "parameters": {f"x{i}": i for i in range(65)}}, 422, None),
        ({"inputs": "a " * 200_000}, 413, "inputs"),
        ({"inputs": {"source_sentence": "a", "sentences": ["b"]}}, 422, "model"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(
    server: RunningServer, body: Any, status: int, param: str | None
) -> None:
    with server.client() as client:
        answer: httpx.Response = client.post("/models/a0", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text

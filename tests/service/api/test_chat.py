"""POST /v1/chat/completions and /v1/completions, called by the openai client, against PEFT's `generate`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoTokenizer

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.bundle.golden import Golden
from rootstock.adapters.spec import Prompting
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder
from tests.service.generating_server import run_decoder_server

MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 10, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def server(
    tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder, saved) as running:
        yield running


def _expected(tiny: TinyDecoder, saved: PeftAdapter | None, messages: list[dict[str, str]] = MESSAGES) -> str:
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    text: str = tokenizer.decode(tiny.greedy(saved, ids, 10), skip_special_tokens=True)
    return text


@pytest.mark.calls("openai", "chat.completions.create")
def test_chats_under_many_adapters_at_once_are_answered_as_peft_answers_each(
    api: openai.OpenAI, tiny: TinyDecoder, saved: list[PeftAdapter]
) -> None:
    models = ["foundation", *(f"a{i}" for i in range(len(saved)))] * 3

    def ask(model: str) -> str | None:
        answer = api.chat.completions.create(model=model, messages=MESSAGES, **GREEDY)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 10
        assert answer.choices[0].finish_reason == "length"
        return answer.choices[0].message.content

    with ThreadPoolExecutor(len(models)) as threads:
        answers = list(threads.map(ask, models))
    expected = {"foundation": _expected(tiny, None)}
    expected |= {f"a{i}": _expected(tiny, one) for i, one in enumerate(saved)}
    for model, answer in zip(models, answers, strict=True):
        assert (answer or "").rstrip("\ufffd") == expected[model].rstrip("\ufffd"), model


@pytest.mark.calls("openai", "chat.completions.create(stream=True)")
def test_a_stream_has_the_text_of_the_whole_answer_and_its_usage(
    server: RunningServer, api: openai.OpenAI
) -> None:
    whole = api.chat.completions.create(model="a1", messages=MESSAGES, **GREEDY)

    async def stream() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
            chunks = await client.chat.completions.create(
                model="a1", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **GREEDY
            )
            return [chunk async for chunk in chunks]

    chunks = asyncio.run(stream())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    streamed, at_once = chunks[-1].usage.model_dump(), whole.usage.model_dump()  # type: ignore[union-attr]
    assert {k: v for k, v in streamed.items() if k.endswith("tokens")} == {
        k: v for k, v in at_once.items() if k.endswith("tokens")
    }


def test_a_conversation_that_goes_on_reuses_what_the_same_adapter_computed_of_it(api: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Does a long question that nobody else asks stay in the cache?"}]

    def cached(model: str, messages: Any) -> tuple[int, int]:
        usage = api.chat.completions.create(model=model, messages=messages, **GREEDY).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0, usage.prompt_tokens

    _, length = cached("a2", messages)
    more = [*messages, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on."}]
    # The template may end the first prompt with a header that the longer one has too.
    assert length - 8 <= cached("a2", more)[0] < cached("a2", more)[1]
    assert cached("a3", messages)[0] < length - 8


def test_a_stream_ends_with_done(client: httpx.Client) -> None:
    body = {"model": "a1", "messages": MESSAGES, "max_tokens": 3, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in lines[:-1])


@pytest.mark.calls("openai", "completions.create")
def test_a_completion_continues_a_text_or_its_tokens(api: openai.OpenAI, tiny: TinyDecoder) -> None:
    text = "Where did they meet?"
    ids = AutoTokenizer.from_pretrained(tiny.folder).encode(text)
    by_text = api.completions.create(model="a2", prompt=text, **GREEDY)
    by_ids = api.completions.create(model="a2", prompt=ids, **GREEDY)
    echoed = api.completions.create(model="a2", prompt=text, echo=True, **GREEDY)
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert echoed.choices[0].text == text + by_text.choices[0].text


def test_log_probabilities_are_those_of_the_chosen_and_of_the_most_likely_tokens(api: openai.OpenAI) -> None:
    answer = api.chat.completions.create(model="a0", messages=MESSAGES, logprobs=True, top_logprobs=3, **GREEDY)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 10
    for token in logprobs.content:
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (top.logprob for top in token.top_logprobs), reverse=True
        )


def _bundle(tiny: TinyDecoder, saved: PeftAdapter, count: int, wrong: int | None = None) -> bytes:
    """Return a bundle with a system prompt and a golden set: PEFT's greedy tokens and log-probabilities."""
    prompt = "Where is my parcel?"
    ids = AutoTokenizer.from_pretrained(tiny.folder).encode(prompt)
    tokens = tiny.greedy(saved, ids, count)
    with torch.no_grad():
        logits = peft_model(tiny.folder, saved)(input_ids=torch.tensor([ids + tokens])).logits[0]
    scores = logits.log_softmax(-1)[len(ids) - 1 : -1]
    rows = [[token, float(scores[i, token])] for i, token in enumerate(tokens)]
    if wrong is not None:
        rows[wrong][0] += 1
    plain = open_bundle(saved.zip(), Limits(), tiny.spec)
    golden = Golden((prompt,), (np.asarray(rows, np.float32),))
    manifest = replace(plain.manifest, prompting=Prompting("Be brief."))
    return write_bundle(manifest, {**plain.files, GOLDEN: golden.to_bytes()}).to_zip()


def test_a_bundle_s_golden_tokens_are_replayed_and_its_system_prompt_begins_each_chat(
    client: httpx.Client, api: openai.OpenAI, tiny: TinyDecoder, saved: list[PeftAdapter]
) -> None:
    published = upload(client, "brief", _bundle(tiny, saved[1], 6))
    assert published.status_code == 201, published.text
    assert published.json()["verification"]["golden"] == "passed"
    answer = api.chat.completions.create(model="brief", messages=MESSAGES, **GREEDY)
    expected = _expected(tiny, saved[1], [{"role": "system", "content": "Be brief."}, *MESSAGES])
    assert (answer.choices[0].message.content or "").rstrip("\ufffd") == expected.rstrip("\ufffd")
    own = [{"role": "system", "content": "Be verbose."}, *MESSAGES]
    answer = api.chat.completions.create(model="brief", messages=own, **GREEDY)
    assert (answer.choices[0].message.content or "").rstrip("\ufffd") == _expected(tiny, saved[1], own).rstrip(
        "\ufffd"
    )


def test_a_bundle_whose_golden_tokens_differ_is_refused(
    client: httpx.Client, tiny: TinyDecoder, saved: list[PeftAdapter]
) -> None:
    refused = upload(client, "wrong", _bundle(tiny, saved[1], 6, wrong=3))
    assert refused.status_code == 422
    assert "outputs[0][3]" in refused.json()["error"]["message"]
    assert client.get("/v1/adapters/wrong").status_code == 404


def test_several_answers_are_given_to_one_chat(api: openai.OpenAI) -> None:
    answer = api.chat.completions.create(model="a0", messages=MESSAGES, n=3, seed=5, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@pytest.mark.parametrize(
    ("route", "body", "status", "message"),
    [
        ("chat/completions", {"messages": []}, 422, "messages"),
        ("chat/completions", {"messages": [{"role": "wizard", "content": "a"}]}, 422, "role"),
        ("chat/completions", {"messages": MESSAGES, "temperature": 3}, 422, "temperature is 3"),
        ("chat/completions", {"messages": MESSAGES, "n": 99}, 422, "n is 99"),
        ("chat/completions", {"messages": MESSAGES, "n": 0}, 422, "n is 0"),
        ("completions", {"prompt": "a", "n": -1}, 422, "n is -1"),
        ("chat/completions", {"messages": MESSAGES, "logit_bias": {"x": 1}}, 422, "'x'"),
        ("chat/completions", {"messages": MESSAGES, "top_logprobs": 2}, 422, "needs logprobs"),
        ("chat/completions", {"messages": MESSAGES, "suffix": "a"}, 422, "unknown field 'suffix'"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a " * 300}]},
            422,
            "the context holds 128",
        ),
        ("completions", {"prompt": ""}, 422, "the prompt is empty"),
        ("completions", {"prompt": "a", "model": "nobody"}, 404, "nobody"),
        ("completions", {"prompt": [-1], "echo": True}, 422, "token id -1"),
        ("completions", {"prompt": {"text": "a"}}, 422, "prompt: expected a string or a list"),
        ("completions", {"prompt": "a", "stop_token_ids": [-1]}, 422, "stop_token_ids holds the token id -1"),
        ("completions", {"prompt": "a" * 300_000}, 413, "300000 characters"),
        (
            "chat/completions",
            {"messages": MESSAGES, "max_completion_tokens": 0},
            422,
            "max_completion_tokens is 0",
        ),
        (
            "chat/completions",
            {"messages": MESSAGES, "logprobs": True, "top_logprobs": 30},
            422,
            "top_logprobs is 30",
        ),
        ("predict", {"inputs": "a", "model": "nobody"}, 404, "nobody"),
        ("completions", {"prompt": "a", "stop": "a" * 300}, 422, "a stop string has 300 characters"),
        ("completions", {"prompt": "a", "logit_bias": {str(i): 1 for i in range(1025)}}, 422, "has 1025 tokens"),
        ("completions", {"prompt": [99999]}, 422, "token id 99999"),
        ("embeddings", {"input": "a"}, 422, "/v1/chat/completions"),
        ("predict", {"inputs": "a"}, 422, "/v1/chat/completions"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_with_the_reason(
    client: httpx.Client, route: str, body: dict[str, Any], status: int, message: str
) -> None:
    answer = client.post(f"/v1/{route}", json={"model": "a0", **body})
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_an_answer_names_the_version_and_the_digest_that_computed_it(client: httpx.Client) -> None:
    listed = client.get("/v1/adapters/a2").json()
    body = {"model": "a2", "messages": MESSAGES, "max_tokens": 2}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["version"] == 1
    assert answer["digest"] in json.dumps(listed)
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
        first = json.loads(next(stream.iter_lines()).removeprefix("data: "))
    assert first["digest"] == answer["digest"]


def test_a_client_that_leaves_a_stream_frees_its_room(client: httpx.Client) -> None:
    body = {"model": "a1", "messages": MESSAGES, "max_tokens": 100, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    until = time.monotonic() + HANG
    # The decoder's thread goes on while a page is written, so one page can show two moments.
    freed = [f'rootstock_{gauge}{{foundation="foundation"}} 0.0' for gauge in ("sequences", "kv_tokens")]
    while not all(line in (text := client.get("/metrics").text) for line in freed):
        assert time.monotonic() < until, text
    assert 'rootstock_generated_tokens_total{adapter="a1"}' in text


def test_an_error_in_the_middle_of_a_stream_is_an_event(client: httpx.Client) -> None:
    body = {"model": "a1", "messages": MESSAGES, "max_tokens": 100, "ignore_eos": True, "stream": True}
    with client.stream(
        "POST", "/v1/chat/completions", json=body, headers={"X-Request-Timeout": "0.02"}
    ) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    if answer.status_code == 200:
        assert lines[-1] == "[DONE]"
        assert json.loads(lines[-2])["error"]["code"] == "deadline_exceeded"
    else:  # The deadline passed before the first event.
        assert answer.status_code == 504


def test_the_bytes_of_a_token_are_those_of_a_part_of_a_character(tiny: TinyDecoder) -> None:
    tokenizer = PromptTokenizer(tiny.folder)
    text = "naïve ☕ 漢字"
    assert b"".join(map(tokenizer.bytes_of, tokenizer.encode(text))) == text.encode("utf-8")


def test_the_models_and_limits_name_text_generation(client: httpx.Client) -> None:
    models = {model["id"]: model["tasks"] for model in client.get("/v1/models").json()["data"]}
    assert models["foundation"] == ["text-generation", "feature-extraction"]
    assert models["a0"] == ["text-generation"]
    assert "text-generation" in client.get("/v1/limits").json()["tasks"]


def test_an_encoder_refuses_a_chat_and_names_the_route_for_its_inputs(tmp_path: Path) -> None:
    from tests.masked_lm import make_filling

    tiny = make_filling(tmp_path / "model")
    settings = Settings(home=tmp_path / "home", foundation=str(tiny.folder), demo=False, log_level="error")
    with run_server(settings) as running, running.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "foundation", "messages": MESSAGES})
    assert answer.status_code == 422
    assert "/v1/predict" in answer.json()["error"]["message"]

"""Structured answers and calls of tools, with the openai client, on random weights that know neither."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.bounds import HANG
from tests.live_server import RunningServer
from tests.service.engine.generate.families import TinyDecoder, make_decoder
from tests.service.generating_server import run_decoder_server

MESSAGES: list[Any] = [{"role": "user", "content": "Where is my parcel?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "kind": {"enum": ["a", "b"]}},
    "required": ["city", "kind"],
    "additionalProperties": False,
}
TRACK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "track", "description": "Finds a parcel.", "parameters": SCHEMA},
}
STOP: dict[str, Any] = {"type": "function", "function": {"name": "stop_all"}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def server(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path_factory.mktemp("home"), tiny.folder) as running:
        yield running


def _ask(api: openai.OpenAI, seed: int = 1, **fields: Any) -> Any:
    values = {"model": "foundation", "messages": MESSAGES, "seed": seed, "max_tokens": 300} | fields
    return api.chat.completions.create(**values).choices[0]


def test_answers_in_a_json_schema_are_valid_beside_answers_in_none(api: openai.OpenAI) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}

    def ask(seed: int) -> Any:
        return _ask(api, seed) if seed % 3 == 0 else _ask(api, seed, response_format=format_)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(12)))
    for seed, answer in enumerate(answers):
        if seed % 3:
            assert answer.finish_reason == "stop"
            jsonschema.validate(json.loads(answer.message.content), SCHEMA)


@pytest.mark.calls("openai", "chat.completions.parse")
def test_the_openai_client_parses_an_answer_into_a_pydantic_model(api: openai.OpenAI) -> None:
    class Parcel(BaseModel):
        model_config = ConfigDict(extra="forbid")

        weight: Literal[1, 2]
        note: str = Field(max_length=5)
        inner: Parcel | None

    answer = api.chat.completions.parse(
        model="foundation", messages=MESSAGES, response_format=Parcel, seed=3, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Parcel)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("second", ["arguments", "b"])
def test_a_structured_text_may_quote_the_mark_of_a_call(api: openai.OpenAI, stream: bool, second: str) -> None:
    properties = {"a": {"const": "<tool_call>"}, second: {"const": 1}}
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["a", second],
        "additionalProperties": False,
    }
    fields: Any = {
        "model": "foundation",
        "messages": MESSAGES,
        "tools": [TRACK],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": 300,
    }
    texts = []
    for seed in range(6):
        if stream:
            chunks = list(api.chat.completions.create(**fields, seed=seed, stream=True))
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
        else:
            texts.append(api.chat.completions.create(**fields, seed=seed).choices[0].message.content)
    said = [json.loads(text) for text in texts if text]
    assert said
    assert all(one["a"] == "<tool_call>" for one in said)


def test_a_json_object_is_one_and_text_is_free(api: openai.OpenAI) -> None:
    bias = {"logit_bias": {"93": 20}}  # the closing brace, so that random weights come to an end
    answer = _ask(api, response_format={"type": "json_object"}, max_tokens=300, **bias)
    assert answer.message.content.startswith("{")
    if answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.message.content), dict)
    free = _ask(api, max_tokens=20)
    assert _ask(api, max_tokens=20, response_format={"type": "text"}).message == free.message


def test_a_completion_follows_a_regular_expression_and_chooses_among_texts(api: openai.OpenAI) -> None:
    def complete(**outputs: Any) -> Any:
        extra = {"structured_outputs": outputs}
        return api.completions.create(
            model="foundation", prompt="It costs", seed=2, max_tokens=90, extra_body=extra
        ).choices[0]

    assert re.fullmatch(r"\d\d? (EUR|€)", complete(regex=r"\d\d? (EUR|€)").text)
    assert complete(choice=["cheap", "dear"]).text in ("cheap", "dear")
    jsonschema.validate(json.loads(complete(json=SCHEMA).text), SCHEMA)
    short = api.completions.create(
        model="foundation", prompt="a", max_tokens=3, extra_body={"structured_outputs": {"regex": "x{400}"}}
    )
    assert short.choices[0].finish_reason == "length"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "track"}}], ids=str)
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.calls("openai", "chat.completions.create(tools=tools)")
def test_an_answer_that_must_call_tools_calls_them_with_valid_arguments(
    api: openai.OpenAI, choice: Any, parallel: bool
) -> None:
    names = set()
    single = not parallel or choice != "required"
    for seed in range(6):
        # The bias is for the model's end: random weights would call for ever.
        fields: dict[str, Any] = {"tool_choice": choice, "parallel_tool_calls": parallel, "logit_bias": {"2": 4}}
        answer = _ask(api, seed, tools=[TRACK, STOP], max_tokens=600, **fields)
        if answer.finish_reason == "length":
            assert not single
            continue
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        calls = answer.message.tool_calls
        assert not single or len(calls) == 1
        assert len({call.id for call in calls}) == len(calls)
        for call in calls:
            names.add(call.function.name)
            schema = SCHEMA if call.function.name == "track" else {"type": "object", "maxProperties": 0}
            jsonschema.validate(json.loads(call.function.arguments), schema)
    assert names <= ({"track", "stop_all"} if choice == "required" else {"track"})
    assert names


def test_an_answer_that_may_call_tools_is_text_or_calls(api: openai.OpenAI) -> None:
    text = _ask(api, tools=[TRACK], max_tokens=30)
    assert text.message.content
    assert text.message.tool_calls is None
    json_text = _ask(
        api,
        tools=[TRACK],
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    )
    if json_text.finish_reason == "stop":
        jsonschema.validate(json.loads(json_text.message.content), SCHEMA)
    else:
        jsonschema.validate(json.loads(json_text.message.tool_calls[0].function.arguments), SCHEMA)


def test_a_stream_has_the_calls_of_the_whole_answer(api: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"tools": [TRACK, STOP], "tool_choice": "required", "parallel_tool_calls": False}
    whole = _ask(api, 4, **fields)
    stream = api.chat.completions.create(
        model="foundation", messages=MESSAGES, seed=4, max_tokens=300, stream=True, **fields
    )
    chunks = [chunk.choices[0] for chunk in stream]
    deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert chunks[-1].finish_reason == whole.finish_reason == "tool_calls"
    assert deltas[0].id
    assert deltas[0].type == "function"
    assert deltas[0].function.name == whole.message.tool_calls[0].function.name
    arguments = "".join(delta.function.arguments for delta in deltas)
    assert arguments == whole.message.tool_calls[0].function.arguments
    assert all(delta.id is None and delta.function.name is None for delta in deltas[1:])


def test_the_openai_client_accumulates_a_stream_of_calls(api: openai.OpenAI) -> None:
    with api.chat.completions.stream(
        model="foundation", messages=MESSAGES, seed=4, max_tokens=300, tools=[TRACK], tool_choice="required",
        parallel_tool_calls=False,
    ) as stream:  # fmt: skip
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls
    jsonschema.validate(json.loads(final.message.tool_calls[0].function.arguments), SCHEMA)


def test_calls_and_their_results_go_back_into_the_chat(api: openai.OpenAI) -> None:
    first = _ask(api, tools=[TRACK], tool_choice="required", parallel_tool_calls=False)
    call = first.message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is in Rome."}
    answer = _ask(api, messages=[*MESSAGES, first.message, result], tools=[TRACK], max_tokens=10)
    assert answer.finish_reason in ("length", "stop", "tool_calls")
    without = _ask(api, messages=[*MESSAGES, first.message, result], max_tokens=10)
    assert without.message.tool_calls is None


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "Field required"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "x"}}}},
            "response_format.json_schema.schema",
            "Invalid type: x",
        ),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "one of the two",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "2 of the fields"),
        ({"structured_outputs": {}}, "structured_outputs", "0 of the fields"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar", "grammar"),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", "unclosed group"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least 1"),
        ({"tools": []}, "tools", "at least 1"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
        ({"tools": [TRACK, TRACK]}, "tools", "2 functions named 'track'"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        (
            {"tools": [TRACK], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "'x', which is not in tools",
        ),
        ({"tools": [TRACK], "tool_choice": "always"}, "tool_choice", "expected none, auto, required"),
        (
            {"tools": [TRACK, {"type": "function", "function": {"name": "g", "parameters": {"not": {}}}}]},
            "tools.1.function.parameters",
            "not",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "g", "parameters": {"type": "string"}}}]},
            "tools.0.function.parameters",
            "arguments are an object",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0", "no content"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "c",
                                "type": "function",
                                "function": {"name": "a", "arguments": '{"a": "\\ud800"}'},
                            }
                        ],
                    }
                ]
            },
            "messages.0",
            "not the text of a JSON object",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "a", "arguments": "["}}
                        ],
                    }
                ]
            },
            "messages.0",
            "not the text of a JSON object",
        ),
    ],
)
def test_a_structure_or_a_tool_that_is_not_valid_is_refused_with_its_field(
    client: httpx.Client, fields: dict[str, Any], param: str, message: str
) -> None:
    body = {"model": "foundation", "messages": MESSAGES, "max_tokens": 5, **fields}
    before = _generated(client)
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["param"].startswith(param)
    assert _generated(client) == before


def _generated(client: httpx.Client) -> list[str]:
    text = client.get("/metrics").text
    return [line for line in text.splitlines() if line.startswith("rootstock_generated_tokens_total")]


def test_a_client_that_leaves_a_stream_of_calls_frees_its_room(client: httpx.Client) -> None:
    body = {"model": "foundation", "messages": MESSAGES, "max_tokens": 1000, "stream": True}
    body |= {"structured_outputs": {"regex": "x{900,}"}}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    until = time.monotonic() + HANG
    while 'rootstock_sequences{foundation="foundation"} 0.0' not in client.get("/metrics").text:
        assert time.monotonic() < until

"""BentoML's own clients call a server by the methods of its schema, and get the native answers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live_server import READER, RunningServer
from tests.peft_adapters import TEXTS
from tests.serve_process import serving
from tests.service.engine.generate.families import make_decoder
from tests.service.generating_server import run_decoder_server

with warnings.catch_warnings():
    # BentoML uses names of pathspec and pydantic that are deprecated.
    warnings.simplefilter("ignore")
    from bentoml import AsyncHTTPClient, SyncHTTPClient
    from bentoml.exceptions import BentoMLException, NotFound

CHANGING = {"timings", "id", "created"}
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]


@contextmanager
def calling(url: str, **options: Any) -> Iterator[Any]:
    with SyncHTTPClient(url, **options) as caller:
        yield caller
    # The client leaves its folder to the garbage collector, which warns.
    caller._temp_dir.cleanup()


def lasting(answer: Any) -> Any:
    """The parts of an answer that do not change from call to call."""
    return {key: value for key, value in answer.items() if key not in CHANGING}


def native(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return lasting(answer.json())


def test_a_server_that_bentoml_runs_is_called_by_its_client(new_home: Callable[[], Path]) -> None:
    with serving(new_home(), "bentoml") as (_, client), calling(str(client.base_url)) as caller:
        assert caller.is_ready()
        answer = caller.predict(model="review-sentiment", inputs="Wonderful, I would buy it again.")
        assert answer["predictions"][0]["label"] == "positive"
        body = {"model": "review-sentiment", "inputs": "Wonderful, I would buy it again."}
        assert lasting(answer) == native(client, "/v1/predict", body)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("predict", "/v1/predict", {"model": "mood", "inputs": TEXTS, "parameters": {"top_k": 2}}),
        ("predict", "/v1/predict", {"models": ["mood", "mood@1"], "inputs": {"text": "a", "text_pair": "b"}}),
        ("embeddings", "/v1/embeddings", {"model": "embedder", "input": TEXTS, "dimensions": 8}),
        ("rerank", "/v1/rerank", {"model": "ranking", "query": "x", "documents": TEXTS, "top_n": 2}),
        ("moderations", "/v1/moderations", {"model": "mood", "input": TEXTS}),
        ("tokenize", "/tokenize", {"model": "mood", "prompt": "Where is my parcel?"}),
        ("detokenize", "/detokenize", {"model": "mood", "tokens": [101, 2073, 102]}),
    ],
)
@pytest.mark.calls("bentoml", "SyncHTTPClient.predict")
@pytest.mark.calls("bentoml", "SyncHTTPClient.embeddings")
@pytest.mark.calls("bentoml", "SyncHTTPClient.rerank")
@pytest.mark.calls("bentoml", "SyncHTTPClient.moderations")
@pytest.mark.calls("bentoml", "SyncHTTPClient.tokenize")
@pytest.mark.calls("bentoml", "SyncHTTPClient.detokenize")
def test_a_method_gives_the_whole_native_answer(
    server: RunningServer, client: httpx.Client, method: str, path: str, body: dict[str, Any]
) -> None:
    expected = native(client, path, body)
    with calling(server.url) as caller:
        answer = getattr(caller, method)(**body)
    if "results" in expected and "models" in body:
        answer, expected = ([lasting(one) for one in both["results"]] for both in (answer, expected))
        assert answer == expected
    else:
        assert lasting(answer) == expected


@pytest.mark.usefixtures("published")
@pytest.mark.calls("bentoml", "AsyncHTTPClient.predict")
def test_the_asynchronous_client_has_the_same_methods(server: RunningServer, client: httpx.Client) -> None:
    body = {"model": "mood", "inputs": TEXTS}

    async def ask() -> list[Any]:
        async with AsyncHTTPClient(server.url) as caller:
            answers = await asyncio.gather(*(caller.predict(**body) for _ in range(3)))
        caller._temp_dir.cleanup()
        return answers

    expected = native(client, "/v1/predict", body)["predictions"]
    for answer in asyncio.run(ask()):
        found = [(one["label"], one["score"]) for one in answer["predictions"]]
        assert found == [(one["label"], pytest.approx(one["score"], abs=1e-5)) for one in expected]


def test_a_refusal_reaches_the_caller(server: RunningServer) -> None:
    with calling(server.url) as caller:
        with pytest.raises(NotFound, match="no adapter is named"):
            caller.predict(model="nobody", inputs="x")
        with pytest.raises(BentoMLException, match="is missing"):
            caller.predict(inputs="x")
        with pytest.raises(TypeError, match="Arguments not found in endpoint predict"):
            caller.predict(model="mood", text="x")
        with pytest.raises(TypeError, match="Missing required arguments"):
            caller.predict(model="mood")


def test_a_key_is_the_token_of_the_client(serve: Callable[..., RunningServer]) -> None:
    running = serve(api_key=READER)
    with running.client() as stranger:
        assert stranger.get("/schema.json").status_code == 401
    with calling(running.url, token=READER) as caller:
        assert len(caller.embeddings(model="foundation", input="x")["data"]) == 1


@pytest.mark.calls("bentoml", "SyncHTTPClient.chat_completions")
@pytest.mark.calls("bentoml", "SyncHTTPClient.completions")
def test_a_foundation_that_generates_chats_and_continues(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "tiny-chat")
    rest: dict[str, Any] = {"model": "foundation", "max_tokens": 8, "temperature": 0}
    with run_decoder_server(tmp_path / "home", tiny.folder) as running, running.client() as client:
        with calling(running.url) as caller:
            chat = caller.chat_completions(messages=MESSAGES, **rest)
            text = caller.completions(prompt="Where is", **rest)
            with pytest.raises(TypeError, match="stream"):
                caller.completions(prompt="Where is", stream=True, **rest)
        expected = native(client, "/v1/chat/completions", {"messages": MESSAGES, **rest})
        assert chat["choices"] == expected["choices"]
        expected = native(client, "/v1/completions", {"prompt": "Where is", **rest})
        assert text["choices"] == expected["choices"]

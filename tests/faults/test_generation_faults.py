"""Faults, a full queue and a stop while a server generates text: who is refused, and who loses an answer."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from rootstock.adapters.spec import Array
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.engine import GenerationEngine
from tests.bounds import HANG
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter
from tests.serve_process import serving
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder
from tests.service.generating_server import run_decoder_server

CHAT = {
    "model": "a0",
    "messages": [{"role": "user", "content": "Where is my parcel?"}],
    "max_tokens": 8,
    "temperature": 0,
    "ignore_eos": True,
}

LONG: dict[str, Any] = {"stream": True, "max_tokens": 300}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    folder = tmp_path_factory.mktemp("llama") / "tiny-chat"
    return make_decoder("llama", folder, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def saved(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))[:2]


@pytest.fixture
def server(tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path: Path) -> Iterator[RunningServer]:
    with run_decoder_server(tmp_path, tiny.folder, saved) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def generator(server: RunningServer) -> GenerationEngine:
    engine = server.app.state.server.foundations.first.generator
    assert isinstance(engine, GenerationEngine)
    return engine


def _ask(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={**CHAT, **body})


def test_a_chat_over_capacity_is_refused_with_the_time_to_retry_and_later_served(
    client: httpx.Client, generator: GenerationEngine
) -> None:
    capacity = generator.admission.capacity
    waiting = generator.admission.enter(capacity.items, 0)
    completion = client.post("/v1/completions", json={"model": "a0", "prompt": "a"})
    for refused in (_ask(client), _ask(client, stream=True), completion):
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
    generator.admission.leave(waiting)
    assert _ask(client).status_code == 200


def test_a_decoder_that_fails_loses_the_answers_of_its_pass_and_no_others(
    client: httpx.Client, generator: GenerationEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _ask(client).json()["choices"]
    run = generator.runner.run
    faults = iter([MemoryError("cannot allocate 40 MB")])

    def run_once_more(segments: Sequence[Segment]) -> Array:
        for fault in faults:
            raise fault
        return run(segments)

    monkeypatch.setattr(generator.runner, "run", run_once_more)
    lost = _ask(client)
    assert (lost.status_code, lost.json()["error"]["code"]) == (500, "runner_fault")
    assert _ask(client).json()["choices"] == before
    assert client.get("/readyz").status_code == 200


def test_a_decoder_s_thread_that_ends_answers_all_who_wait_and_the_server_is_not_ready(
    client: httpx.Client, generator: GenerationEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(segments: Sequence[Segment]) -> Array:
        raise SystemExit("the decoder's thread is gone")

    with ThreadPoolExecutor(4) as threads:
        monkeypatch.setattr(generator.runner, "run", end)
        answers = list(threads.map(lambda name: _ask(client, model=name), ["a0", "a1", "foundation", "a0"]))
    codes = {(answer.status_code, answer.json()["error"]["code"]) for answer in answers}
    assert (500, "runner_fault") in codes
    assert codes <= {(500, "runner_fault"), (503, "draining")}
    assert (client.get("/readyz").status_code, client.get("/livez").status_code) == (503, 503)
    assert _ask(client).status_code == 503


def _stream(client: httpx.Client, begun: Barrier, model: str) -> tuple[str, str]:
    """Return a stream's text and the reason of its end. Wait for the other streams after the first event."""
    text, finish, events = "", "", 0
    with client.stream("POST", "/v1/chat/completions", json={**CHAT, "model": model, **LONG}) as answer:
        for line in filter(None, answer.iter_lines()):
            if line == "data: [DONE]":
                return text, finish
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            events += 1
            if events == 1:
                begun.wait(HANG)
    pytest.fail(f"the stream of {model} has no end")


@pytest.mark.parametrize("program", ["uvicorn", pytest.param("bentoml", marks=pytest.mark.slow)])
def test_a_stop_while_chats_stream_loses_no_token_of_them(
    program: str, tiny: TinyDecoder, saved: list[PeftAdapter], tmp_path: Path
) -> None:
    models = ["foundation", "a0", "a1"] * 2
    settings = {"ROOTSTOCK_FOUNDATION": str(tiny.folder), "ROOTSTOCK_DEMO": "false", "ROOTSTOCK_THREADS": "1"}
    with serving(tmp_path, program, **settings) as (process, client), ThreadPoolExecutor(6) as threads:
        for i, adapter in enumerate(saved):
            assert upload(client, f"a{i}", adapter.zip()).status_code == 201
        whole = [
            _ask(client, model=name, max_tokens=300).json()["choices"][0]["message"]["content"]
            for name in models[:3]
        ]
        begun = Barrier(len(models) + 1)
        streams = [threads.submit(_stream, client, begun, model) for model in models]
        begun.wait(HANG)
        process.send_signal(signal.SIGTERM)
        answers = [stream.result(HANG) for stream in streams]
        assert process.wait(HANG) in (0, -signal.SIGTERM)
    assert answers == [(text, "length") for text in whole] * 2

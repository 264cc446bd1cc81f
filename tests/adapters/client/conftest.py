"""A server of a tiny foundation with an adapter for each task, and of a tiny decoder; transformers' pipelines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import transformers

from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.masked_lm import home_of, make_filling
from tests.parity.foundations import Tiny
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter, tokenizer_of
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder
from tests.service.generating_server import run_decoder_server

NLI_LABELS = ["contradiction", "neutral", "entailment"]
# By name: PEFT's task type, the number of labels, and the form's fields.
ADAPTERS: dict[str, tuple[str, int, dict[str, str]]] = {
    "mood": ("SEQ_CLS", 3, {"labels": '["neutral", "glad", "angry"]'}),
    "tags": ("TOKEN_CLS", 5, {}),
    "nli": ("SEQ_CLS", 3, {"task": "zero-shot-classification", "labels": str(NLI_LABELS).replace("'", '"')}),
    "qa": ("QUESTION_ANS", 2, {}),
    "ranker": ("SEQ_CLS", 1, {"task": "text-ranking"}),
    "embedder": ("FEATURE_EXTRACTION", 0, {}),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_filling(tmp_path_factory.mktemp("foundation") / "tiny")


@pytest.fixture(scope="session")
def saved(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeftAdapter]:
    root = tmp_path_factory.mktemp("saved")
    return {
        name: save_adapter(tiny.folder, root / name, task_type, seed, labels, r=4)
        for seed, (name, (task_type, labels, _)) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="session")
def live(
    tiny: Tiny, saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    home = home_of(tiny, tmp_path_factory.mktemp("home"))
    settings = Settings(home=home, foundation=str(tiny.folder), demo=False, log_level="error", threads=1)
    with run_server(settings) as running, running.client() as client:
        for name, adapter in saved.items():
            answer = upload(client, name, adapter.zip(), **ADAPTERS[name][2])
            assert answer.status_code == 201, answer.text
        yield running


@pytest.fixture
def connected(live: RunningServer) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="session")
def decoder_saved(decoder: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    return make_adapters(decoder, tmp_path_factory.mktemp("adapters"))[0]


@pytest.fixture(scope="session")
def generating(
    decoder: TinyDecoder, decoder_saved: PeftAdapter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server whose adapter `a0` generates text."""
    with run_decoder_server(tmp_path_factory.mktemp("home"), decoder.folder, [decoder_saved]) as running:
        yield running


@pytest.fixture(scope="session")
def pipeline(tiny: Tiny, saved: dict[str, PeftAdapter]) -> Callable[..., Any]:
    """Return a function that makes transformers' pipeline of an adapter, with the labels of its upload."""

    def make(task: str, name: str, labels: list[str] | None = None) -> Any:
        model = peft_model(tiny.folder, saved[name]).merge_and_unload()
        if labels is not None:
            model.config.id2label = dict(enumerate(labels))
            model.config.label2id = {label: i for i, label in enumerate(labels)}
        return transformers.pipeline(task, model=model, tokenizer=tokenizer_of(tiny.folder), device="cpu")

    return make


class Awaited:
    """The methods of an asynchronous client, each run on an event loop until its end."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            if isinstance(answer, AsyncClient):
                return Awaited(answer, self._runner)
            if inspect.isawaitable(answer):
                answer = self._runner.run(_awaited(answer))
            return iter(self._runner.run(_listed(answer))) if hasattr(answer, "__aiter__") else answer

        return call

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _awaited(answer: Any) -> Any:
    return await answer


async def _listed(answer: Any) -> list[Any]:
    return [one async for one in answer]


@pytest.fixture(params=["blocking", "asynchronous"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Any]]:
    """Return a function that opens a client of a URL, blocking or asynchronous; both are called alike."""
    opened: list[Any] = []

    def open_one(url: str) -> Any:
        opened.append(Client(url) if request.param == "blocking" else Awaited(AsyncClient(url), asyncio.Runner()))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()

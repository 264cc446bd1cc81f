"""A server with adapters of every task, and a browser that visits its console."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.composition.demo_adapters import DEMO
from rootstock.service.settings import Settings
from tests.console.browsing import Visit, run_browser, skip_without_chromium
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter, save_adapter, with_card
from tests.service.engine.generate.families import make_decoder

NLI = {"task": "zero-shot-classification", "labels": '["contradiction", "neutral", "entailment"]'}
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
CARD = f"""---
license: mit
---
# Title of the card

A [link](https://elsewhere.example/), a [trap](javascript:alert(1)) and {HOSTILE} <script>alert(1)</script>

![picture](https://elsewhere.example/pixel.png)
"""


# `make test` has these files; `make test-console` has all.
FAST = ("test_frame", "test_playground")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the other files as slow."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in FAST:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path],
    foundation: FoundationFiles,
    peft_saved: dict[str, PeftAdapter],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    """Yield a server of the default foundation and a tiny one that generates, `tiny-chat`."""
    skip_without_chromium()
    tiny = make_decoder("llama", tmp_path_factory.mktemp("tiny") / "tiny-chat")
    settings = Settings(
        home=new_home(), foundations=f"default,{tiny.folder}", demo=False, log_level="error", threads=1
    )
    with run_server(settings) as running, running.client() as client:
        folder = tmp_path_factory.mktemp("answers")
        answers = save_adapter(foundation.folder, folder, "QUESTION_ANS", 5, labels=2, r=4)
        publish(client, {**peft_saved, "answers": answers})
        yield running


def publish(client: httpx.Client, saved: dict[str, PeftAdapter]) -> None:
    labels = json.dumps([HOSTILE, "a label of many words that does not end soon", "c"])
    for name in ("entities", "review-sentiment"):
        answer = upload(client, name, (DEMO / f"{name}.zip").read_bytes())
        assert answer.status_code == 201, answer.text
    folders: list[tuple[str, bytes, dict[str, str]]] = [
        ("mood", with_card(saved["first"], CARD), {"labels": labels}),
        ("mood", saved["second"].zip(), {}),
        ("ranker", saved["scalar"].zip(), {"task": "text-ranking"}),
        ("embedder", saved["embedder"].zip(), {}),
        ("reader", saved["answers"].zip(), {}),
        ("topics", saved["first"].zip(), NLI),
    ]
    for name, data, fields in folders:
        answer = upload(client, name, data, foundation="default", **fields)
        assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def browser(server: RunningServer) -> Iterator[Browser]:
    """Yield a browser. It starts after the server, because no other event loop may run in this thread then."""
    with run_browser() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: RunningServer) -> Iterator[Callable[..., Visit]]:
    """Yield a function that begins a visit to the server. At the end each visit must be free of errors."""
    visits: list[Visit] = []

    def begin(url: str = server.url, **context: Any) -> Visit:
        visits.append(Visit(browser, url, **context))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()


@pytest.fixture
def console(visit: Callable[..., Visit]) -> Page:
    """Return the console's page in a new visit."""
    return visit().open()

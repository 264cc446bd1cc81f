"""A server with adapters of every task, and a browser that visits its console."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from rootstock.service.composition import DEMO
from rootstock.service.settings import Settings
from tests.console.browsing import Visit, run_browser
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import make_decoder

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
CARD = f"""---
license: mit
---
# Title of the card

A [link](https://elsewhere.example/), a [trap](javascript:alert(1)) and {HOSTILE} <script>alert(1)</script>

![picture](https://elsewhere.example/pixel.png)
"""


def with_card(adapter: PeftAdapter, card: str) -> bytes:
    """Return the zip of an adapter that PEFT saved, with another card."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(adapter.zip())) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != "README.md":
                new.writestr(name, old.read(name))
        new.writestr("README.md", card)
    return out.getvalue()


@pytest.fixture(scope="module")
def server(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Yield a server of the default foundation and a tiny one that generates, `tiny-chat`."""
    tiny = make_decoder("llama", tmp_path_factory.mktemp("tiny") / "tiny-chat")
    settings = Settings(
        home=new_home(), foundations=f"default,{tiny.folder}", demo=False, log_level="error", threads=1
    )
    with run_server(settings) as running, running.client() as client:
        publish(client, peft_saved)
        yield running


def publish(client: httpx.Client, saved: dict[str, PeftAdapter]) -> None:
    labels = json.dumps([HOSTILE, "a label of many words that does not end soon", "c"])
    bundles: list[tuple[str, bytes, dict[str, str]]] = [
        ("entities", (DEMO / "entities.zip").read_bytes(), {}),
        ("review-sentiment", (DEMO / "review-sentiment.zip").read_bytes(), {}),
        ("mood", with_card(saved["first"], CARD), {"labels": labels}),
        ("mood", saved["second"].zip(), {}),
        ("ranker", saved["scalar"].zip(), {"task": "text-ranking"}),
        ("embedder", saved["embedder"].zip(), {}),
    ]
    for name, data, fields in bundles:
        answer = upload(client, name, data, foundation="default", **fields)
        if answer.status_code == 422 and "foundation" in answer.text:
            answer = upload(client, name, data, **fields)
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

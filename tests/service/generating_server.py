"""Servers that generate text: of the default foundation and a tiny one, `tiny-chat`, or of one alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import make_decoder

CHAT = {"model": "tiny-chat", "messages": [{"role": "user", "content": "héllo"}], "max_tokens": 2}


@contextmanager
def run_generating_server(home: Path, folder: Path) -> Iterator[RunningServer]:
    """Start the server on a home; the tiny foundation goes to a new folder inside `folder`.

    It has a webhook at an address where nobody listens, and so shows the metrics of webhooks too.
    """
    tiny = make_decoder("llama", folder / "tiny-chat")
    settings = Settings(
        home=home,
        foundations=f"default,{tiny.folder}",
        demo=False,
        log_level="error",
        max_body_mb=1,
        webhook_urls="http://127.0.0.1:1/",
        webhook_secret="whsec_" + "A" * 32,
    )
    with run_server(settings) as running:
        yield running


@contextmanager
def run_decoder_server(
    home: Path, foundation: Path, saved: Sequence[PeftAdapter] = ()
) -> Iterator[RunningServer]:
    """Start a server of one foundation with four slots. Upload PEFT's adapters as they are: `a0`, `a1`, …"""
    settings = Settings(home=home, foundation=str(foundation), demo=False, log_level="error", slots=4, threads=1)
    with run_server(settings) as running, running.client() as client:
        for i, adapter in enumerate(saved):
            answer = upload(client, f"a{i}", adapter.zip())
            assert answer.status_code == 201, answer.text
        yield running

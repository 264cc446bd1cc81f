"""A server of two foundations: the default one, and a tiny one that generates text, by the name `tiny-chat`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server
from tests.service.engine.generate.families import make_decoder

CHAT = {"model": "tiny-chat", "messages": [{"role": "user", "content": "héllo"}], "max_tokens": 2}


@contextmanager
def run_generating_server(home: Path, folder: Path) -> Iterator[RunningServer]:
    """Start the server on a home; the tiny foundation goes to a new folder inside `folder`."""
    tiny = make_decoder("llama", folder / "tiny-chat")
    settings = Settings(
        home=home, foundations=f"default,{tiny.folder}", demo=False, log_level="error", max_body_mb=1
    )
    with run_server(settings) as running:
        yield running

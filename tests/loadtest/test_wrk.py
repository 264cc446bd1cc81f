"""The script that wrk runs sends every body in turn and sees every fault. Skipped where there is no wrk."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from rootstock.loadtest.measure import wrk

BODIES = [
    json.dumps({"model": f"m{i}", "inputs": text}, ensure_ascii=i % 2 == 0).encode()
    for i, text in enumerate(['say "hi" \\ 100%', "naïve ☕ 漢字", "line\nbreak\ttab", "]] {x}", ""])
]
EXPECTED = {f"m{i}": (f'"digest":"d{i}"', '"label":"A"') for i in range(len(BODIES))}

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason=wrk.MISSING)


class Echo:
    """Answers each body with its own model's digest; `status` and `label` are what the test makes of it."""

    def __init__(self) -> None:
        self.status, self.label = 200, "A"
        self.seen: Counter[bytes] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.seen[body] += 1
        model = json.loads(body)["model"]
        answer = (
            f'{{"model":"{model}","digest":"d{model[1:]}","predictions":[{{"label":"{self.label}"}}]}}'.encode()
        )
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    app = Echo()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", access_log=False))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    # The system takes connections from now on; the server answers them once it runs.
    yield app, f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@needs_wrk
def test_every_body_is_sent_unchanged_and_in_turn(echo: tuple[Echo, str]) -> None:
    app, url = echo
    for seconds in (1, 4, 16, 64):
        app.seen.clear()
        load = wrk.load(url, wrk.script("/v1/predict", BODIES, EXPECTED), 4, seconds)
        if set(app.seen) == set(BODIES) and load.requests:
            break
    assert set(app.seen) == set(BODIES)
    assert max(app.seen.values()) - min(app.seen.values()) <= 4
    assert 0 < load.requests <= app.seen.total()
    assert 0 < load.p50_ms <= load.p99_ms


@needs_wrk
def test_an_error_status_stops_the_benchmark(echo: tuple[Echo, str]) -> None:
    app, url = echo
    app.status = 503
    with pytest.raises(wrk.LoadError, match="'refused': "):
        wrk.load(url, wrk.script("/", BODIES), 2, 1)


@needs_wrk
def test_a_wrong_answer_stops_the_benchmark(echo: tuple[Echo, str]) -> None:
    app, url = echo
    app.label = "B"
    with pytest.raises(wrk.LoadError, match="'wrong': "):
        wrk.load(url, wrk.script("/", BODIES, EXPECTED), 2, 1)


def test_without_wrk_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(wrk.LoadError, match="apt-get install wrk"):
        wrk.find_wrk()

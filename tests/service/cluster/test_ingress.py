"""The ingress in front of replicas: what it passes on, what it sends again, and what it refuses itself."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rootstock.service.cluster.errors import ReplicaLost
from rootstock.service.cluster.exchange import AnswerPart, AnswerStart, Exchange, ForwardedRequest
from rootstock.service.cluster.ingress import ClusterIngress
from rootstock.service.telemetry import merged_metrics as module
from rootstock.service.telemetry.merged_metrics import merged_metrics
from rootstock.service.telemetry.snapshot import MetricsSnapshot
from tests.bounds import HANG

pytestmark = pytest.mark.anyio
MIB = 2**20
PREDICT, UPLOAD = "/v1/predict", "/v1/adapters"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def echo(request: Request) -> Response:
    body = await request.body()
    url = request.url
    told = {"path": url.path, "query": url.query, "bytes": len(body), "key": request.headers["key"]}
    return JSONResponse(told, 207, {"X-Given": "kept"})


class Replicas:
    """Replicas in this process. Those in `lost` end before their answer, or after its first part."""

    def __init__(self, app: Starlette, lost: list[int] | None = None) -> None:
        self._app = app
        self._lost = lost or []
        self.asked: list[tuple[ForwardedRequest, list[str]]] = []

    async def answer(self, request: ForwardedRequest, names: list[str]) -> AsyncIterator[AnswerPart]:
        self.asked.append((request, names))
        ends_after = self._lost.pop(0) if self._lost else None
        parts = Exchange(self._app, request).parts()
        done = 0
        async for part in parts:
            if done == ends_after:
                raise ReplicaLost("the replica has ended")
            done += 1
            yield part

    async def answer_of_each(self, request: ForwardedRequest) -> dict[str, AnswerStart]:
        page = b"# HELP rootstock_ready Ready\n# TYPE rootstock_ready gauge\nrootstock_ready 1.0\n"
        headers = [(b"content-type", b"text/plain; version=0.0.4")]
        return {name: AnswerStart(200, headers, page, False) for name in ("0", "1")}


def client_of(replicas: Replicas, **limits: int) -> httpx.AsyncClient:
    sizes = {"max_body": MIB, "max_upload": 2 * MIB, **limits}
    ingress = ClusterIngress(replicas, served_names={}, **sizes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(ingress), base_url="http://ingress", timeout=HANG)


APP = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE"])])


async def test_a_request_and_its_answer_pass_through_whole() -> None:
    replicas = Replicas(APP)
    async with client_of(replicas) as client:
        body = json.dumps({"model": "support@2", "inputs": "x" * 5000}).encode()
        headers = {"Key": "k", "Content-Type": "application/json"}
        answer = await client.post(f"{PREDICT}?a=%2F", content=body, headers=headers)
    assert answer.status_code == 207
    assert answer.headers["x-given"] == "kept"
    assert answer.json() == {"path": PREDICT, "query": "a=%2F", "bytes": len(body), "key": "k"}
    assert [names for _, names in replicas.asked] == [["support"]]


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [("POST", PREDICT, 2), ("GET", UPLOAD, 2), ("POST", UPLOAD, 1), ("PUT", f"{UPLOAD}/a/aliases/live", 1)],
)
async def test_only_a_request_that_changes_nothing_is_sent_to_a_second_replica(
    method: str, path: str, sent: int
) -> None:
    replicas = Replicas(APP, lost=[0])
    async with client_of(replicas) as client:
        answer = await client.request(method, path, headers={"Key": "k"})
    assert len(replicas.asked) == sent
    if sent == 2:
        assert answer.status_code == 207
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_lost")


async def test_a_request_is_sent_again_once() -> None:
    replicas = Replicas(APP, lost=[0, 0])
    async with client_of(replicas) as client:
        answer = await client.post(PREDICT, headers={"Key": "k"})
    assert len(replicas.asked) == 2
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_lost")


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def pieces(request: Request) -> Response:
        return StreamingResponse(iter(["one", "two", "three"]))

    app = Starlette(routes=[Route("/{path:path}", pieces, methods=["POST"])])
    replicas = Replicas(app, lost=[1])
    async with client_of(replicas) as client:
        with pytest.raises(ReplicaLost):
            await client.post(PREDICT)
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_its_route_s_limit_reaches_no_replica(declared: bool) -> None:
    replicas = Replicas(APP)
    big = b"x" * (MIB + 1)

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 2**16):
            yield big[start : start + 2**16]

    async with client_of(replicas) as client:
        refused = await client.post(PREDICT, content=big if declared else in_pieces())
        taken = await client.post(UPLOAD, content=big, headers={"Key": "k"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
    assert taken.status_code == 207
    assert len(replicas.asked) == 1


async def test_bodies_that_would_fill_the_memory_are_refused_until_others_have_gone() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        entered.set()
        await release.wait()
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/{path:path}", wait, methods=["POST"])])
    async with client_of(Replicas(app), most_buffered=3000) as client:
        first = asyncio.create_task(client.post(PREDICT, content=b"x" * 2000))
        await asyncio.wait_for(entered.wait(), HANG)
        refused = await client.post(PREDICT, content=b"x" * 2000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        release.set()
        assert (await first).status_code == 200
        assert (await client.post(PREDICT, content=b"x" * 2000)).status_code == 200


async def test_an_app_sees_that_its_client_has_left() -> None:
    seen = asyncio.Event()

    async def until_left(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        seen.set()
        return PlainTextResponse("nobody reads this")

    app = Starlette(routes=[Route("/{path:path}", until_left, methods=["POST"])])
    ingress = ClusterIngress(Replicas(app), MIB, MIB, {})
    events: list[dict[str, Any]] = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: Any) -> None:
        pytest.fail("an answer to a client that has left")

    request = ForwardedRequest("POST", "http", PREDICT, PREDICT.encode(), b"", "1.1", [], None, b"")
    await asyncio.wait_for(ingress(request.scope, receive, send), HANG)
    await asyncio.wait_for(seen.wait(), HANG)


async def test_a_stream_that_nobody_reads_on_ends_in_the_replica() -> None:
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        leaving = asyncio.create_task(left())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        ended.set()

    parts = Exchange(endless, ForwardedRequest("GET", "http", "/", b"/", b"", "1.1", [], None, b"")).parts()
    assert isinstance(await anext(parts), AnswerStart)
    assert await anext(parts) == b"x" * 100
    await parts.aclose()  # type: ignore[attr-defined]
    assert ended.is_set()


async def test_the_metrics_are_those_of_every_replica() -> None:
    async with client_of(Replicas(APP)) as client:
        page = (await client.get("/metrics")).text
    assert 'rootstock_ready{replica="0"} 1.0' in page
    assert MetricsSnapshot(page, 0.0).sum("ready") == 2


async def test_a_stream_ends_for_a_client_of_a_real_server() -> None:
    async def pieces(request: Request) -> Response:
        return StreamingResponse(iter(["one", "two", "three"]))

    app = Starlette(routes=[Route("/{path:path}", pieces, methods=["POST"])])
    config = uvicorn.Config(ClusterIngress(Replicas(app), MIB, MIB, {}), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=HANG) as client:
            answer = await client.post(PREDICT)
        assert (answer.headers["transfer-encoding"], answer.text) == ("chunked", "onetwothree")
        server.should_exit = True
        await asyncio.wait_for(serving, HANG)


async def test_a_body_that_waits_for_its_answer_is_held_once() -> None:
    size, held = 16, []

    class Waiting(Replicas):
        async def answer(self, request: ForwardedRequest, names: list[str]) -> AsyncIterator[AnswerPart]:
            held.append(tracemalloc.get_traced_memory()[0] - before)
            yield AnswerStart(200, [], b"", False)

    left = size

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bytes(MIB), "more_body": left > 0}

    async def send(message: Any) -> None:
        pass

    request = ForwardedRequest("POST", "http", PREDICT, PREDICT.encode(), b"", "1.1", [], None, b"")
    ingress = ClusterIngress(Waiting(APP), size * MIB, MIB, {})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await ingress(request.scope, receive, send)
    finally:
        tracemalloc.stop()
    assert size * MIB <= held[0] < 1.5 * size * MIB


async def test_askers_of_the_metrics_share_a_merge_and_those_with_another_key_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merging, merged, threads = threading.Event(), threading.Event(), []

    def slow(pages: dict[str, str], label: str) -> str:
        threads.append(threading.current_thread())
        merging.set()
        assert merged.wait(HANG)
        return merged_metrics(pages, label)

    monkeypatch.setattr(module, "merged_metrics", slow)
    async with client_of(Replicas(APP)) as client:
        asked = [asyncio.create_task(client.get("/metrics")) for _ in range(5)]
        asked.append(asyncio.create_task(client.get("/metrics", headers={"Authorization": "Bearer k"})))
        await asyncio.to_thread(merging.wait, HANG)
        # The event loop is free: it answers another request meanwhile.
        assert (await client.post(PREDICT, headers={"Key": "k"})).status_code == 207
        assert len(threads) == 1
        merged.set()
        assert {(await one).status_code for one in asked} == {200}
    assert len(threads) == 2
    assert threading.main_thread() not in threads

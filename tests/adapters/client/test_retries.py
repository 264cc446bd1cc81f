"""A call is repeated where that is safe, as often and as late as the server and the caller allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from starlette.responses import Response

from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import NotFound, ServerBusy, TimedOut, Unreachable
from tests.adapters.stand_in import ZIP, StandIn, bound, refusal, serving
from tests.loopback_server import run_loopback


class Clock:
    """A clock that only its own sleeps move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def server(running: StandIn) -> StandIn:
    running.reset()
    return running


@pytest.fixture
def client(server: StandIn, clock: Clock) -> Iterator[Client]:
    with Client(server.url, clock=clock, sleep=clock.sleep) as opened:
        yield opened


def busy(status: int = 429, after: str | None = None) -> Response:
    return refusal(status, "overloaded", "too busy", None if after is None else {"Retry-After": after})


CALLS: dict[str, Callable[[Client], Any]] = {
    "predict": lambda client: client.predict("a", "x"),
    "fan_out": lambda client: client.fan_out(["a"], "x"),
    "embed": lambda client: client.embed("a", "x"),
    "push": lambda client: client.push(ZIP, "a"),
    "promote": lambda client: client.promote("a", 1),
    "share": lambda client: client.share("a"),
    "show": lambda client: client.show("a"),
    "rollback": lambda client: client.rollback("a"),
    "delete": lambda client: client.delete("a"),
    "undelete": lambda client: client.undelete("a"),
    "deleted": lambda client: client.deleted("a"),
}
ONCE = {"rollback", "delete", "undelete"}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_that_gets_429_waits_as_long_as_the_server_says(
    server: StandIn, client: Client, clock: Clock, call: str
) -> None:
    server.instead = [busy(after="7"), busy(after="3")]
    CALLS[call](client)
    assert len(server.seen) == 3
    assert [7 <= clock.slept[0] <= 7.2, 3 <= clock.slept[1] <= 3.4] == [True, True]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_gets_503_is_repeated_unless_twice_means_something_else(
    server: StandIn, client: Client, call: str
) -> None:
    server.instead = [busy(503)]
    if call in ONCE:
        with pytest.raises(ServerBusy):
            CALLS[call](client)
    else:
        CALLS[call](client)
    assert len(server.seen) == (1 if call in ONCE else 2)


def test_a_second_upload_sends_the_whole_bundle_again(server: StandIn, client: Client) -> None:
    server.instead = [busy(503)]
    client.push(ZIP, "a")
    assert [seen.bundle for seen in server.seen] == [ZIP, ZIP]


@pytest.mark.parametrize("after", [None, "nan", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_without_seconds_to_wait_each_pause_is_about_twice_the_last(
    server: StandIn, clock: Clock, after: str | None
) -> None:
    server.instead = [busy(after=after) for _ in range(4)]
    with Client(server.url, retries=4, clock=clock, sleep=clock.sleep) as client:
        client.predict("a", "x")
    for i, pause in enumerate(clock.slept):
        assert 0.1 * 2**i <= pause <= 0.2 * 2**i
    assert len(set(clock.slept)) == 4


@pytest.mark.parametrize("retries", [0, 3])
def test_the_tries_end(server: StandIn, clock: Clock, retries: int) -> None:
    server.instead = [busy(after="0") for _ in range(20)]
    with (
        Client(server.url, retries=retries, clock=clock, sleep=clock.sleep) as client,
        pytest.raises(ServerBusy) as caught,
    ):
        client.predict("a", "x")
    assert (caught.value.status, caught.value.retry_after) == (429, 0)
    assert len(server.seen) == 1 + retries


def test_no_try_begins_after_the_timeout(server: StandIn, clock: Clock) -> None:
    server.instead = [busy(after="4") for _ in range(20)]
    with (
        Client(server.url, timeout=10, retries=9, clock=clock, sleep=clock.sleep) as client,
        pytest.raises(ServerBusy, match="too busy"),
    ):
        client.predict("a", "x")
    assert len(server.seen) == 3
    assert clock.now < 110


def test_a_wait_beyond_the_timeout_is_left_to_the_caller(server: StandIn, clock: Clock) -> None:
    server.instead = [busy(after="60")]
    with (
        Client(server.url, timeout=30, clock=clock, sleep=clock.sleep) as client,
        pytest.raises(ServerBusy) as caught,
    ):
        client.predict("a", "x")
    assert caught.value.retry_after == 60
    assert (len(server.seen), clock.slept) == (1, [])


def test_what_the_server_refuses_for_good_is_not_repeated(server: StandIn, client: Client) -> None:
    server.instead = [refusal(404, "unknown_adapter", "no")]
    with pytest.raises(NotFound):
        client.predict("a", "x")
    assert len(server.seen) == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_call_without_a_connection_finds_the_server_that_comes_up_meanwhile(clock: Clock, call: str) -> None:
    listener, running = bound(), StandIn()
    started = serving(running, listener)

    def start(seconds: float) -> None:
        clock.sleep(seconds)
        started.__enter__()

    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, clock=clock, sleep=start) as client:
        CALLS[call](client)
    started.__exit__(None, None, None)
    assert len(clock.slept) == 1


@pytest.mark.parametrize("call", ["predict", "push", "rollback"])
def test_a_connection_that_breaks_is_made_again_unless_twice_means_something_else(
    clock: Clock, call: str
) -> None:
    tries = 0

    class Breaking(BaseHTTPRequestHandler):
        """Ends every connection in the middle of the request."""

        def do_POST(self) -> None:
            nonlocal tries
            tries += 1
            self.close_connection = True

    with (
        run_loopback(Breaking) as url,
        Client(url, retries=2, clock=clock, sleep=clock.sleep) as client,
        pytest.raises(Unreachable, match="broke off"),
    ):
        CALLS[call](client)
    assert tries == (1 if call in ONCE else 3)


def test_the_asynchronous_client_waits_in_the_same_way(server: StandIn, clock: Clock) -> None:
    server.instead = [busy(after="7"), busy(503), busy(after="60")]

    async def ask() -> None:
        async with AsyncClient(server.url, timeout=30, clock=clock, sleep=clock.sleep_async) as client:
            assert (await client.predict("a", "x")).label == "x"

    with pytest.raises(ServerBusy) as caught:
        asyncio.run(ask())
    assert caught.value.retry_after == 60
    assert len(server.seen) == 3
    assert 7 <= clock.slept[0] <= 7.2
    assert 0.2 <= clock.slept[1] <= 0.4


def test_waiting_ends_when_the_server_is_ready_and_serves_the_model(
    server: StandIn, client: Client, clock: Clock
) -> None:
    not_ready, unknown = busy(503), refusal(404, "unknown_adapter", "no such adapter")
    ok = Response('{"status": "ready"}')
    server.instead = [not_ready, not_ready, ok, unknown, ok]
    client.wait("mood@prod", timeout=60)
    asked = ["GET /readyz"] * 3 + ["GET /v1/models/mood@prod"] * 2
    assert server.asked == asked
    assert clock.now == pytest.approx(100 + 3 * 0.2)


def test_waiting_ends_in_time_with_an_error_that_says_what_is_missing(
    server: StandIn, client: Client, clock: Clock
) -> None:
    server.instead = [busy(503) for _ in range(99)]
    with pytest.raises(TimedOut, match="after 3 s the server is not ready: too busy"):
        client.wait(timeout=3)
    assert 102 < clock.now <= 103
    server.instead = [
        Response('{"status": "ready"}'),
        *(refusal(404, "unknown_adapter", "no") for _ in range(99)),
    ]
    with pytest.raises(TimedOut, match="after 3 s the server does not serve 'mood': no"):
        client.wait("mood", timeout=3)

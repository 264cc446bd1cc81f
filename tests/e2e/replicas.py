"""Several `rootstock serve` processes on one PostgreSQL and one S3 server, and clients that ask all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bounds import HANG
from tests.object_storage import ObjectStorage
from tests.postgres_process import PostgresProcess
from tests.serve_process import serving


@contextmanager
def replicas(
    count: int, new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage, **settings: str
) -> Iterator[list[httpx.Client]]:
    """Start servers with homes of their own and one registry and store; yield a client of each."""
    shared = {
        "ROOTSTOCK_REGISTRY_URL": postgres.new_schema(),
        "ROOTSTOCK_STORE_URL": f"s3://{s3.new_bucket()}/bundles",
        "ROOTSTOCK_DEMO": "false",
        **settings,
    }
    with ExitStack() as stack:
        yield [stack.enter_context(serving(new_home(), "uvicorn", log=[], **shared))[1] for _ in range(count)]


@dataclass(frozen=True)
class Heard:
    """One answer of a replica: when it was asked for and came (monotonic seconds), its status and version."""

    sent: float
    came: float
    status: int
    version: int | None


class Asking:
    """Threads that ask each replica for `reference` without a pause, until the block ends."""

    def __init__(self, clients: Sequence[httpx.Client], reference: str, threads: int = 2) -> None:
        self._reference = reference
        self._stopping = threading.Event()
        self.heard: list[list[Heard]] = [[] for _ in clients]
        self.broken: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(str(client.base_url), heard))
            for client, heard in zip(clients, self.heard, strict=True)
            for _ in range(threads)
        ]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(HANG)

    @property
    def failed(self) -> list[object]:
        """The answers that are no success, and the connections that broke."""
        return [*self.broken, *(one for heard in self.heard for one in heard if one.status != 200)]

    def _ask(self, url: str, heard: list[Heard]) -> None:
        body = {"model": self._reference, "inputs": "Where is my parcel?"}
        with httpx.Client(base_url=url, timeout=HANG) as client:
            while not self._stopping.is_set():
                sent = time.monotonic()
                try:
                    answer = client.post("/v1/predict", json=body)
                except httpx.TransportError as error:
                    self.broken.append(error)
                    return
                version = answer.json()["version"] if answer.status_code == 200 else None
                heard.append(Heard(sent, time.monotonic(), answer.status_code, version))


class AliasHistory:
    """When an alias was moved where; a move takes effect at some time between its request and its answer."""

    def __init__(self, version: int) -> None:
        self._moves = [(0.0, 0.0, version)]

    def move(self, client: httpx.Client, name: str, alias: str, version: int) -> None:
        """Move the alias through one replica."""
        began = time.monotonic()
        client.put(f"/v1/adapters/{name}/aliases/{alias}", json={"version": version}).raise_for_status()
        self._moves.append((began, time.monotonic(), version))

    def lag(self, answer: Heard) -> float:
        """Return for how many seconds the alias had left an answer's version as the request was sent; else 0."""
        lag = float("inf")
        for i, (began, _, version) in enumerate(self._moves):
            if version == answer.version and began <= answer.came:
                left = self._moves[i + 1][1] if i + 1 < len(self._moves) else float("inf")
                lag = min(lag, max(0.0, answer.sent - left))
        return lag

"""Clients that ask without a pause while something breaks, and note what each answer was worth."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from tests.bounds import HANG

TEXTS = ("Where is my parcel?", "It broke within a week, and nobody answers.", "ok")
TOLERANCE = 1e-4
REFUSED = 0


@dataclass(frozen=True)
class Reply:
    """One answer: when it came (monotonic seconds), its status, and the error's code where it is one.

    Status 0 stands for a connection that was refused before anything was sent. `right`: a 200 that says what the
    server said before the fault.
    """

    at: float
    model: str
    status: int
    code: str | None
    right: bool


def ask(client: httpx.Client, model: str, text: str, request_id: str = "one") -> httpx.Response:
    """One prediction, all labels."""
    body = {"model": model, "inputs": text, "parameters": {"top_k": None}}
    return client.post("/v1/predict", json=body, headers={"X-Request-Id": request_id})


class Clients:
    """Threads, each of which asks again as soon as it is answered, for every model and text in turn.

    `broken`: the ids of the requests that were sent and got no answer, for their connection broke.
    """

    def __init__(self, url: str, models: Sequence[str], count: int = 8) -> None:
        self._url = url
        self._asked = list(itertools.product(models, TEXTS))
        self._count = count
        self._expected: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._asking = 0
        self._threads: list[threading.Thread] = []
        self.replies: list[Reply] = []
        self.broken: set[str] = set()

    def __enter__(self) -> Self:
        with httpx.Client(base_url=self._url, timeout=HANG) as client:
            for model, text in self._asked:
                answer = ask(client, model, text)
                assert answer.status_code == 200, answer.text
                self._expected[model, text] = answer.json()["predictions"][0]
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(self._count)]
        self._asking = len(self._threads)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask nothing more; returns once every request is answered."""
        self._stopping = True
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive(), "a request was never answered"

    def more(self, count: int) -> None:
        """Wait until there are so many more answers than now. Fail once no client is left to get them."""
        with self._changed:
            wanted = len(self.replies) + count
            assert self._changed.wait_for(lambda: len(self.replies) >= wanted or not self._asking, HANG)
        assert len(self.replies) >= wanted, f"every client has stopped; without an answer: {sorted(self.broken)}"

    @property
    def failed(self) -> list[Reply]:
        """The answers that are not right."""
        return [reply for reply in self.replies if not reply.right]

    def recovered_after(self, moment: float) -> float:
        """Seconds from a moment to the first right answer after the last failed one."""
        last = max((reply.at for reply in self.failed), default=moment)
        return min(reply.at for reply in self.replies if reply.right and reply.at >= last) - moment

    def _run(self, number: int) -> None:
        try:
            self._ask_on(number)
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def _ask_on(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=HANG) as client:
            asked = itertools.islice(itertools.cycle(self._asked), number, None)
            for i, (model, text) in enumerate(asked):
                if self._stopping:
                    return
                request_id = f"client-{number}-{i}"
                try:
                    answer = ask(client, model, text, request_id)
                except httpx.ConnectError:
                    self._add(Reply(time.monotonic(), model, REFUSED, None, False))
                    return
                except httpx.TransportError:
                    self.broken.add(request_id)
                    return
                self._add(self._reply(answer, model, text))

    def _reply(self, answer: httpx.Response, model: str, text: str) -> Reply:
        body = answer.json()
        if answer.status_code != 200:
            return Reply(time.monotonic(), model, answer.status_code, body["error"]["code"], False)
        wanted = {one["label"]: one["score"] for one in self._expected[model, text]}
        given = {one["label"]: one["score"] for one in body["predictions"][0]}
        right = body["model"] == model and given.keys() == wanted.keys()
        right = right and all(abs(given[label] - wanted[label]) <= TOLERANCE for label in wanted)
        return Reply(time.monotonic(), model, 200, None, right)

    def _add(self, reply: Reply) -> None:
        with self._changed:
            self.replies.append(reply)
            self._changed.notify_all()

"""A receiver of webhooks on the loopback interface, which answers as a test tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.bounds import HANG
from tests.loopback_server import run_loopback


@dataclass(frozen=True)
class Delivered:
    """A message that came: its headers and its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def place(self) -> int:
        """The place of the event among those of all tenants, which the message's id states."""
        return int(self.id.split("_")[1])


class WebhookTarget:
    """A receiver. `statuses` are the answers to the next messages; after them it answers `status`."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.received: list[Delivered] = []
        # While it is not set, the receiver answers nobody.
        self.answers = threading.Event()
        self.answers.set()
        self.changed = threading.Condition()

    @property
    def taken(self) -> list[Delivered]:
        """The messages that got 2xx, without those that came again."""
        return list({one.id: one for one in self.received if one.status < 300}.values())

    @property
    def whats(self) -> list[str]:
        return [one.document["type"].removeprefix("adapter.") for one in self.taken]

    def wait(self, taken: int) -> list[Delivered]:
        """Return the messages once as many have been taken."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= taken, HANG), self.whats
        return self.taken

    def wait_for_attempts(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, HANG)


@contextmanager
def webhook_target() -> Iterator[WebhookTarget]:
    """Start a receiver and stop it at the end."""
    target = WebhookTarget()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            target.answers.wait(HANG)
            with target.changed:
                status = target.statuses.pop(0) if target.statuses else target.status
                headers = {name.lower(): value for name, value in self.headers.items()}
                target.received.append(Delivered(self.path, headers, body, status))
                target.changed.notify_all()
            self.send_response(status)
            for name, value in target.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *values: object) -> None:
            pass

    with run_loopback(Handler) as url:
        target.url = f"{url}/hooks/s3cret-path"
        try:
            yield target
        finally:
            target.answers.set()

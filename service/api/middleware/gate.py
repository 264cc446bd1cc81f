"""The gate that every request passes: a request id, the keys or the site, the body cap, a log line, a count."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.api.errors import answer_error, error_response
from rootstock.service.api.middleware.site import Sites
from rootstock.service.api.server import Server

if TYPE_CHECKING:
    from rootstock.service.telemetry.tracing import RequestSpan

OPEN_PATHS = ("/livez", "/readyz", "/metrics")
_UPLOAD = "/v1/adapters"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
# Reading on for a while after a 413 lets the client read the answer instead of a reset.
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Keys:
    """The bearer tokens: `api` may infer and list, `admin` may do everything. None: not asked for."""

    api: str | None = None
    admin: str | None = None

    @property
    def none(self) -> bool:
        """Tell whether no call needs a key."""
        return self.api is None and self.admin is None

    def refusal(self, method: str, path: str, header: str | None) -> tuple[int, str, str] | None:
        """Return status, code and message if this call is not allowed with this Authorization header."""
        if path in OPEN_PATHS or self.none:
            return None
        changes = path.startswith(_UPLOAD) and method not in ("GET", "HEAD")
        if not changes and self.api is None:
            return None
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return 401, "missing_key", "this server asks for a key: send Authorization: Bearer <key>"
        allowed = [self.admin] if changes else [self.api, self.admin]
        # Every key is compared, in constant time each, whatever the others gave.
        matches = [hmac.compare_digest(token.encode(), key.encode()) for key in allowed if key is not None]
        if any(matches):
            return None
        return (
            403,
            "wrong_key",
            "this key does not allow this call" + (": it needs the admin key" if changes else ""),
        )


class Gate:
    """ASGI middleware around the app. Refuses before the body is read; a body over its cap, while it is."""

    def __init__(self, app: ASGIApp, keys: Keys, sites: Sites, max_body: int, max_upload: int) -> None:
        self.app = app
        self.keys = keys
        self.sites = sites
        self.max_body = max_body
        self.max_upload = max_upload
        self._log = structlog.get_logger().bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            k: v for k, v in scope["headers"] if k in (b"authorization", b"x-request-id", b"content-length")
        }
        passage = _Passage(scope, receive, send, _request_id(headers.get(b"x-request-id")))
        structlog.contextvars.bind_contextvars(request_id=passage.request_id)
        server: Server = scope["app"].state.server
        span = None
        if server.tracing is not None and scope["path"] not in OPEN_PATHS:
            span = server.tracing.begin(scope, passage.request_id)
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        refusal = self._refusal(scope, headers.get(b"authorization"))
        upload = scope["method"] == "POST" and scope["path"] == _UPLOAD
        passage.cap = self.max_upload if upload else self.max_body
        try:
            if refusal is not None:
                status, code, message = refusal
                extra = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
                await error_response(status, message, code, headers=extra)(scope, receive, passage.send)
            elif (declared := _number(headers.get(b"content-length"))) > passage.cap:
                await passage.refuse_body(declared)
            else:
                await self._run(passage)
        finally:
            self._account(passage, server, span)

    def _refusal(self, scope: Scope, authorization: bytes | None) -> tuple[int, str, str] | None:
        if self.keys.none and scope["path"] not in OPEN_PATHS:
            return self.sites.refusal(scope["method"], scope["headers"])
        header = authorization.decode("latin-1") if authorization else None
        return self.keys.refusal(scope["method"], scope["path"], header)

    async def _run(self, passage: _Passage) -> None:
        try:
            await self.app(passage.scope, passage.receive, passage.send)
        except _BodyTooLarge:
            passage.too_large = True
        except Exception as error:
            if passage.started_answer:
                raise
            await answer_error(passage.scope, error)(passage.scope, passage.receive, passage.send)
        if passage.too_large and not passage.started_answer:
            await passage.refuse_body(passage.received)

    def _account(self, passage: _Passage, server: Server, span: RequestSpan | None) -> None:
        seconds = time.perf_counter() - passage.started
        route = passage.scope.get("route")
        template = getattr(route, "path", "other")
        server.metrics.answered(template, passage.status, seconds)
        if span is not None:
            span.end(template, passage.status)
        self._log.debug(
            "request",
            method=passage.scope["method"],
            route=template,
            status=passage.status,
            ms=round(seconds * 1e3, 1),
        )


class _BodyTooLarge(Exception):
    pass


class _Passage:
    """One request on its way through: counts what is received, marks what is sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.cap = 0
        self.received = 0
        self.status = 499  # nothing was sent: the client left first
        self.too_large = False
        self.started_answer = False
        self.started = time.perf_counter()
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self.cap:
                self.too_large = True
                raise _BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        if self.too_large and not self.started_answer:
            return  # FastAPI's own 400 for a body that it could not read; refuse_body answers instead
        await self._forward(message)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started_answer = True
            self.status = message["status"]
            own = [(b"x-request-id", self.request_id.encode("ascii"))]
            if not self.scope["app"].state.server.ready:
                # Asked to leave with its answer, a client does not meet a connection that closes under it.
                own.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", []), *own]
        await self._send(message)

    async def refuse_body(self, size: int) -> None:
        message = f"the body is larger than the {self.cap} bytes that this route takes ({size} bytes and more)"
        response = error_response(413, message, "body_too_large", headers={"Connection": "close"})
        await response(self.scope, self._receive, self._forward)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                drained = 0
                while drained < _DRAIN_BYTES:
                    received = await self._receive()
                    drained += len(received.get("body", b""))
                    if received["type"] != "http.request" or not received.get("more_body"):
                        return
        except TimeoutError:
            return


def _request_id(given: bytes | None) -> str:
    text = (given or b"").decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0

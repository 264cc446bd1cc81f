"""The middleware around every route: it applies the other modules of this folder to a request, in order."""

from __future__ import annotations

import time

import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rootstock.service.api.compat.inference_protocol.plain_error import in_form_of
from rootstock.service.api.errors import answer_error, error_response
from rootstock.service.api.middleware.access_log import AccessLog
from rootstock.service.api.middleware.body_limit import BodyLimit, BodyTooLarge
from rootstock.service.api.middleware.head import RequestHead
from rootstock.service.api.middleware.keys import ADAPTERS_PATH, OPEN_PATHS, authenticate, is_counted
from rootstock.service.api.middleware.request_id import choose_request_id
from rootstock.service.api.middleware.response_headers import ResponseHeaders
from rootstock.service.api.middleware.site import Sites
from rootstock.service.api.server import Server
from rootstock.service.references.splits import noting
from rootstock.service.tenancy.access import ANONYMOUS

# The settings of the two limits on a body.
_BODY, _UPLOAD = "ROOTSTOCK_MAX_BODY_MB", "ROOTSTOCK_MAX_BUNDLE_MB"


class Gate:
    """ASGI middleware around the app: request id, span, headers, keys or site, quotas, body, metrics and log.

    It puts whom a request is from at `scope["state"]["principal"]`.

    It refuses doubled headers, a wrong key, a foreign site and a Content-Length over the limit before it reads
    the body. It refuses any other body once more than the limit has arrived. The limit is `max_upload` bytes for
    POST /v1/adapters and `max_body` bytes for all other calls.
    """

    def __init__(self, app: ASGIApp, sites: Sites, max_body: int, max_upload: int) -> None:
        self.app = app
        self.sites = sites
        self.max_body = max_body
        self.max_upload = max_upload
        self._access_log = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request; pass any other scope to the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = RequestHead.of(scope["headers"])
        request_id = choose_request_id(head.values.get(b"x-request-id"))
        started = time.perf_counter()
        response = ResponseHeaders(scope, send, request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        server: Server = scope["app"].state.server
        span = None
        if server.tracing is not None and scope["path"] not in OPEN_PATHS:
            span = server.tracing.begin(scope, request_id)
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        # Of a request that is refused below, nothing is known.
        scope.setdefault("state", {})["principal"] = ANONYMOUS
        upload = scope["method"] == "POST" and scope["path"] == ADAPTERS_PATH
        limit, setting = (self.max_upload, _UPLOAD) if upload else (self.max_body, _BODY)
        body = BodyLimit(limit, setting, receive, response)
        try:
            if head.refusal is None:
                refusal = await self._refusal(scope, server, head.values.get(b"authorization"), response)
            else:
                status, code, message = head.refusal
                refusal = error_response(status, message, code)
            if refusal is not None:
                await in_form_of(scope["path"], refusal)(scope, receive, response.send)
            elif head.body_bytes > body.limit:
                await body.refuse(scope, head.body_bytes)
            else:
                with server.quotas.charging(scope["state"]["principal"]), noting(response.chosen):
                    await self._run(scope, body, response)
        finally:
            self._access_log.record(scope, server, span, response.status, time.perf_counter() - started)

    async def _refusal(
        self, scope: Scope, server: Server, authorization: bytes | None, response: ResponseHeaders
    ) -> JSONResponse | None:
        """Return the answer to a request that is refused here; else note who it is from, and count it."""
        if server.access.none and scope["path"] not in OPEN_PATHS:
            foreign = self.sites.refusal(scope["method"], scope["headers"])
            if foreign is not None:
                status, code, message = foreign
                return error_response(status, message, code)
        header = authorization.decode("latin-1") if authorization else None
        try:
            principal = await authenticate(server.access, scope, header)
            scope["state"]["principal"] = principal
            if is_counted(scope):
                response.added = server.quotas.admit(principal)
        except Exception as error:
            return answer_error(scope, error)
        return None

    async def _run(self, scope: Scope, body: BodyLimit, response: ResponseHeaders) -> None:
        try:
            await self.app(scope, body.receive, body.send)
        except BodyTooLarge:
            body.exceeded = True
        except Exception as error:
            if response.started:
                raise
            answer = in_form_of(scope["path"], answer_error(scope, error))
            await answer(scope, body.receive, body.send)
        if body.exceeded and not response.started:
            await body.refuse(scope, body.received)

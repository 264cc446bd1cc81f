"""The ASGI app in front of the replicas: it reads a request, and passes on the answer of a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from typing import Protocol

import structlog
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from rootstock.service.api.compat.inference_protocol.plain_error import in_form_of
from rootstock.service.api.errors import answer_error, error_response
from rootstock.service.api.middleware.keys import ADAPTERS_PATH, METRICS_PATH, required_role
from rootstock.service.cluster.errors import ReplicaLost
from rootstock.service.cluster.exchange import AnswerPart, AnswerStart, ForwardedRequest
from rootstock.service.cluster.named_models import named_models
from rootstock.service.engine.core.errors import Overloaded
from rootstock.service.telemetry.merged_metrics import MetricsMerges

_MIB = 2**20
# The bytes of bodies that wait for their ends or for their answers. More would fill the memory of the ingress, in
# which Ray's message to the replica holds each body once more.
_MOST_BUFFERED = 512 * _MIB


class ReplicaCalls(Protocol):
    """The replicas of one foundation, as the ingress calls them."""

    def answer(self, request: ForwardedRequest, names: list[str]) -> AsyncIterator[AnswerPart]:
        """Have a replica that holds these adapters answer. Raise ReplicaLost if it ends before its answer."""
        ...

    async def answer_of_each(self, request: ForwardedRequest) -> dict[str, AnswerStart]:
        """Have every replica answer a request whose answer is one message; return the answers by replica."""
        ...


class ReadBody:
    """The body of a request. Its size stays known once its bytes are taken."""

    def __init__(self) -> None:
        self.size = 0
        self._bytes = bytearray()

    def add(self, piece: bytes) -> None:
        """Add a piece."""
        self._bytes += piece
        self.size += len(piece)

    def take(self) -> bytes:
        """Return the whole body, and keep no copy."""
        whole = bytes(self._bytes)
        self._bytes = bytearray()
        return whole


class ClusterIngress:
    """An ASGI app that forwards each request to one replica.

    A request that changes nothing goes to a second replica if the first one is lost before its answer has begun.
    The metrics come from every replica.
    """

    def __init__(
        self,
        replicas: ReplicaCalls,
        max_body: int,
        max_upload: int,
        served_names: Mapping[str, str],
        most_buffered: int = _MOST_BUFFERED,
        added_in_front: Collection[bytes] = (),
    ) -> None:
        """Take the replicas, the limits of bodies, and the headers that the HTTP server in front adds itself."""
        self._replicas = replicas
        self._max_body = max_body
        self._max_upload = max_upload
        self._served_names = served_names
        self._most_buffered = most_buffered
        self._added_in_front = frozenset(added_in_front)
        self._buffered = 0
        self._merges: MetricsMerges[Response] = MetricsMerges("replica")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; of the lifespan, there is nothing to start or stop."""
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        elif scope["type"] == "http":
            await self._forward(scope, receive, send)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        bare = ForwardedRequest.of(scope, b"")
        with self._counting() as body:
            refusal = await self._read(bare, receive, body)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            request = bare._replace(body=body.take())
            answering = asyncio.create_task(self._answer(request, scope, receive, send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    answering.result()
            finally:
                for task in (answering, leaving):
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((answering, leaving))

    @contextmanager
    def _counting(self) -> Iterator[ReadBody]:
        """Yield room for a body; its bytes count as long as the request is under way."""
        body = ReadBody()
        try:
            yield body
        finally:
            self._buffered -= body.size

    async def _read(self, request: ForwardedRequest, receive: Receive, body: ReadBody) -> Response | None:
        """Read the body into `body`. Return the refusal of one that is too large, or that finds no room."""
        upload = request.method == "POST" and request.path == ADAPTERS_PATH
        limit, setting = (
            (self._max_upload, "ROOTSTOCK_MAX_BUNDLE_MB") if upload else (self._max_body, "ROOTSTOCK_MAX_BODY_MB")
        )
        declared = request.header(b"content-length")
        if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
            return _too_large(request, limit, setting)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return Response(status_code=499)
            piece = message.get("body", b"")
            if body.size + len(piece) > limit:
                return _too_large(request, limit, setting)
            if self._buffered + len(piece) > self._most_buffered:
                error = Overloaded("the bodies of other requests fill the ingress; try again in 1 s", 1)
                return in_form_of(request.path, answer_error(request.scope, error))
            body.add(piece)
            self._buffered += len(piece)
            more = message.get("more_body", False)
        return None

    async def _answer(self, request: ForwardedRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if request.path == METRICS_PATH and request.method == "GET":
            # Who asks decides what the page holds, so that only equal requests share one.
            key = (request.query, tuple(request.headers))
            page = await self._merges.shared(key, lambda: self._metrics(request))
            await page(scope, receive, send)
            return
        content_type = request.header(b"content-type")
        names = named_models(request.path, request.query, content_type, request.body, self._served_names)
        for again in (True, False):
            try:
                begun = streamed = False
                async with aclosing(self._replicas.answer(request, names)) as parts:  # type: ignore[type-var]
                    async for part in parts:
                        begun = True
                        streamed = streamed or (isinstance(part, AnswerStart) and part.more)
                        await self._pass_on(part, send)
                if streamed:
                    # No part tells that it is the last one.
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            except ReplicaLost as error:
                log = structlog.get_logger()
                if begun:
                    # The server in front closes the connection: the client sees an answer without its end.
                    log.warning("replica lost in the middle of an answer", path=request.path)
                    raise
                if again and _changes_nothing(request):
                    log.warning("replica lost, request sent to another", path=request.path)
                    continue
                await in_form_of(request.path, _lost(error))(scope, receive, send)
                return

    async def _pass_on(self, part: AnswerPart, send: Send) -> None:
        if isinstance(part, AnswerStart):
            headers = [header for header in part.headers if header[0].lower() not in self._added_in_front]
            await send({"type": "http.response.start", "status": part.status, "headers": headers})
            await send({"type": "http.response.body", "body": part.body, "more_body": part.more})
        else:
            await send({"type": "http.response.body", "body": part, "more_body": True})

    async def _metrics(self, request: ForwardedRequest) -> Response:
        answers = await self._replicas.answer_of_each(request)
        pages = {replica: answer for replica, answer in answers.items() if answer.status == 200}
        if not pages:
            return _lost(ReplicaLost("no replica gave its metrics; try again"))
        first = next(iter(pages.values()))
        media = next((value for name, value in first.headers if name == b"content-type"), b"text/plain")
        text = await self._merges.merged({replica: answer.body.decode() for replica, answer in pages.items()})
        return PlainTextResponse(text, media_type=None, headers={"content-type": media.decode("latin-1")})


def _changes_nothing(request: ForwardedRequest) -> bool:
    """Tell whether a second run of a request does no harm: it reads, or it computes an answer."""
    return request.method in ("GET", "HEAD") or required_role(request.method, request.path) in (None, "predict")


def _lost(error: ReplicaLost) -> JSONResponse:
    """Return the answer to a request whose replica was lost. The server itself has no such error."""
    return error_response(503, str(error), error.code)


def _too_large(request: ForwardedRequest, limit: int, setting: str) -> Response:
    message = (
        f"the body is larger than the limit of this route, {limit} bytes ({setting}); send less, or raise the "
        "setting"
    )
    response = error_response(413, message, "body_too_large", headers={"Connection": "close"})
    return in_form_of(request.path, response)


async def _left(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass

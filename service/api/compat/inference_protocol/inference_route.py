"""The form of the Open Inference Protocol's bodies, and of the errors that its routes raise."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from rootstock.adapters.errors import AdapterError
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.inference_protocol.plain_error import plain
from rootstock.service.api.errors import InvalidBody, RequestError, answer_error
from rootstock.service.engine.core.errors import EngineError

HEADER = "Inference-Header-Content-Length"


class _SplitRequest(Request):
    """A request whose body is the JSON in front; `state.binary` holds the bytes behind it."""

    def __init__(self, request: Request, head: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._head = head

    async def body(self) -> bytes:
        return self._head


class InferenceRoute(BodyRoute):
    """A route of the protocol: errors have its form, and bytes may follow the JSON of a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that splits the body, calls BodyRoute's and answers its errors."""
        handle = super().get_route_handler()

        async def split_and_handle(request: Request) -> Response:
            try:
                return await handle(await _split(request))
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part)[:64] for part in first["loc"][1:]) or "the body"
                return JSONResponse({"error": f"{where}: {first['msg']}; /docs lists the fields"}, 422)
            except (RequestError, EngineError, AdapterError) as error:
                return plain(answer_error(request.scope, error))

        return split_and_handle


async def _split(request: Request) -> Request:
    """Return the request with the JSON alone as its body, if its header says that bytes follow it."""
    header = request.headers.get(HEADER)
    if header is None or request.method != "POST":
        return request
    raw = await request.body()
    # The longest size of a body has far fewer digits.
    if not (header.isascii() and header.isdigit() and len(header) < 16) or int(header) > len(raw):
        raise InvalidBody(
            f"{HEADER} is {header[:64]!r} and the body has {len(raw)} bytes; send the number of bytes of the JSON"
        )
    request.state.binary = raw[int(header) :]
    return _SplitRequest(request, raw[: int(header)])

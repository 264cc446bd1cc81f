"""The reading of a request body: as JSON under any Content-Type, as a form only if the Content-Type says so."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import params
from fastapi.routing import APIRoute
from jiter import from_json
from starlette.requests import Request
from starlette.responses import Response

from rootstock.service.api.errors import DuplicateKey, InvalidBody, UnsupportedBody

_JSON = "application/json"
_FORM = "multipart/form-data"
# The depth at which the parser stops; a test compares the two.
MAX_DEPTH = 201
# The parser's message quotes the key as Rust writes a string.
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|(.))")
_TWICE = re.compile(r'Detected duplicate key "(.*)"(?: at line \d+ column \d+)?', re.DOTALL)


class BodyRoute(APIRoute):
    """A route that reads its body as JSON, or as a multipart form if its handler takes form fields."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that reads the body, then calls FastAPI's handler."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        is_form = isinstance(self.body_field.field_info, params.Form)

        async def read_and_handle(request: Request) -> Response:
            _check_encoding(request)
            if is_form:
                _check_form(request)
                return await handle(request)
            return await handle(_JsonRequest(request, await self.read(request)))

        return read_and_handle

    async def read(self, request: Request) -> Any:
        """Return the JSON value of the body. Raise InvalidBody or UnsupportedBody if it is none."""
        raw = await request.body()
        try:
            return parse_json(raw)
        except InvalidBody as error:
            raise self.refusal(raw, declared_type(request), error) from error

    def refusal(self, raw: bytes, declared: str, error: InvalidBody) -> InvalidBody | UnsupportedBody:
        """Return the error of a body that is no JSON: one about its type if that is another one."""
        if raw.strip() and declared and not _is_json(declared):
            return UnsupportedBody(
                f"the body is {declared}; this route takes only JSON; send an object with Content-Type: {_JSON}"
            )
        return error


class _JsonRequest(Request):
    """A request with a parsed body: FastAPI takes the value and does not check the Content-Type."""

    def __init__(self, request: Request, value: Any) -> None:
        headers = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]
        headers.append((b"content-type", _JSON.encode("ascii")))
        super().__init__({**request.scope, "headers": headers}, request.receive)
        self._value = value

    async def body(self) -> bytes:
        return b"parsed"

    async def json(self) -> Any:
        return self._value


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raise InvalidBody if it is not JSON or is nested too deeply. Raise DuplicateKey if an object has a key twice,
    because programs differ in the one that they take.
    """
    if not raw.strip():
        raise InvalidBody(f"the body is empty; send a JSON object with Content-Type: {_JSON}")
    try:
        # The standard library's detection: JSON may begin with a byte order mark, or be UTF-16 or UTF-32.
        encoding = json.detect_encoding(raw)
        text = raw if encoding == "utf-8" else codecs.decode(raw, encoding).encode()
        # pydantic's own parser, with the check that pydantic_core does not offer.
        return from_json(text, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        reason = str(error)
    if twice := _TWICE.fullmatch(reason):
        raise DuplicateKey(_ESCAPE.sub(_unescaped, twice[1]))
    if reason.startswith("recursion limit"):
        raise InvalidBody(f"the body is nested too deeply; the limit is {MAX_DEPTH} levels; send a flatter one")
    if "hex escape" in reason:
        reason += " (half a surrogate pair is not valid text)"
    raise InvalidBody(f"the body is not JSON: {reason}; send a JSON object in UTF-8")


def _unescaped(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}.get(letter, letter)


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedBody(
            f"the body has Content-Encoding {encoding[:100]!r}, which this server does not decode; send it "
            "uncompressed"
        )


def _check_form(request: Request) -> None:
    declared = declared_type(request)
    if declared != _FORM:
        raise UnsupportedBody(
            f"the body is {declared or 'without a Content-Type'}; this route takes only a form; send {_FORM}, as "
            "curl does with -F bundle=@adapter.zip -F name=my-adapter"
        )


def declared_type(request: Request) -> str:
    """Return the declared media type in lower case, without parameters, at most 100 characters; empty if none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()[:100]


def _is_json(declared: str) -> bool:
    return declared == _JSON or declared.endswith("+json")

"""Error answers in one shape: {"error": {"message", "type", "param", "code"}}, each with its HTTP status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Any, cast, get_args

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.spec import Rejected
from rootstock.service.api.compat.inference_protocol.plain_error import in_form_of
from rootstock.service.engine.core.errors import Draining, EngineError, Expired, Overloaded, TooLong
from rootstock.service.tenancy.errors import AccessError, IssuerUnavailable, QuotaExceeded

_STATUS = {
    "invalid_json": 400,
    "duplicate_key": 422,
    "unsupported_media_type": 415,
    "unknown_adapter": 404,
    "unknown_version": 404,
    "unknown_alias": 404,
    "no_card": 404,
    "foundation_not_hosted": 409,
    "no_live_version": 404,
    "no_previous_version": 409,
    "version_in_use": 409,
    "already_published": 409,
    "approval_needed": 403,
    "invalid_split": 422,
    "no_split": 404,
    "invalid_shadow": 422,
    "no_shadow": 404,
    "invalid_rule": 422,
    "no_rule": 404,
    "not_owner": 403,
    "invalid_reference": 422,
    "invalid_name": 422,
    "ambiguous_digest": 409,
    "path_not_allowed": 403,
    "path_not_found": 404,
    "adapter_exists": 400,
    "invalid_source": 422,
    "source_not_allowed": 403,
    "source_unavailable": 422,
    "store_full": 507,
    "unknown_key": 404,
    "invalid_key": 422,
    "ended_key": 409,
    "missing_key": 401,
    "wrong_key": 403,
    "expired_key": 401,
    "revoked_key": 401,
    "invalid_token": 401,
    "issuer_unavailable": 503,
    "foreign_tenant": 403,
    "first_key": 409,
    "quota_exceeded": 429,
    "stored_quota_exceeded": 413,
    "store_unavailable": 503,
    "registry_unavailable": 503,
    "invalid_input": 422,
    "invalid_parameter": 422,
    "wrong_task": 422,
    "no_router": 404,
    "invalid_selector": 422,
    "no_route": 422,
    "invalid_route": 409,
    "invalid_composition": 422,
    "input_too_long": 422,
    "request_too_large": 413,
    "overloaded": 429,
    "deadline_exceeded": 504,
    "draining": 503,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Fields with several forms. The message lists all forms, because pydantic would name the first form's fault.
_UNIONS = {
    "inputs": "a string, {text, text_pair}, {question, context}, {image}, {audio}, or a list of at least one of "
    "these",
    "input": "a string, a list of strings, a list of token ids or of such lists, or a list of {text}, {image} or "
    "{audio}, with at least one item",
    **dict.fromkeys(
        ("instances", "dataframe_split", "dataframe_records"),
        "a list of at least one string, {text, text_pair}, {question, context}, {image} or {audio}",
    ),
    "truncate": "true, false, NONE, START or END",
    "prompt": "a string or a list of at least one token id",
    "stop": "a string or a list of strings",
    "tool_choice": "none, auto, required or {type: function, function: {name}}",
}
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
# Limits of a message: the faults that it names, and the characters that it repeats of a field's name and a path.
_MAX_FAULTS = 5
_MAX_NAME = 64
_MAX_PATH = 256


class RequestError(Exception):
    """A request that no route can read. `code` is stable; `param` names the field at fault."""

    code = "invalid_request"
    param: str | None = None


class InvalidBody(RequestError):
    """A body that is not JSON."""

    code = "invalid_json"


class DuplicateKey(RequestError):
    """An object of the body has a key twice."""

    code = "duplicate_key"

    def __init__(self, key: str) -> None:
        key = key[:_MAX_NAME]
        super().__init__(f"an object of the body has the key {key!r} twice; send it once")
        self.param = key


class UnsupportedBody(RequestError):
    """A body of a media type or encoding that the route does not take."""

    code = "unsupported_media_type"


class ErrorDetail(BaseModel):
    """The details of an error. `message` names the problem and the remedy, `param` the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def error_detail(error: Exception) -> tuple[int, ErrorDetail]:
    """Return the status and details of an error of any layer; an unforeseen one is 500 without its message."""
    param: str | None
    if isinstance(error, Rejected):
        status, code, param = 422, f"rejected_{error.check}", error.where
    elif isinstance(error, RequestError | EngineError | AdapterError):
        status, code, param = status_of(error.code), error.code, error.param
    else:
        return 500, ErrorDetail(
            message="the server failed on this request; its log has the cause under the request id",
            type="server_error",
            param=None,
            code="internal_error",
        )
    return status, ErrorDetail(message=str(error), type=error_type(status), param=param, code=code)


def status_of(code: str) -> int:
    """Return the HTTP status of a code of AdapterError, EngineError or RequestError."""
    return _STATUS.get(code, 500)


def spell(error: EngineError, inputs: str, truncation: str | None = "truncation") -> EngineError:
    """Return the error with a route's names for the inputs and, unless None, for the flag that truncates them."""
    if error.param is not None:
        error.param = error.param.removeprefix("parameters.").replace("inputs", inputs, 1)
    if isinstance(error, TooLong) and error.setting is not None:
        error.setting = truncation
    return error


def fault_detail(path: str, error: Exception) -> tuple[int, ErrorDetail]:
    """Return as `error_detail`, and log a fault of the server.

    A passed deadline, a stop, and an identity provider that is away are no faults.
    """
    status, detail = error_detail(error)
    if status >= 500 and not isinstance(error, Expired | Draining | IssuerUnavailable):
        structlog.get_logger().error("request failed", path=path, code=detail.code, exc_info=error)
    return status, detail


def error_type(status: int) -> str:
    """Return OpenAI's error type for an HTTP status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_response(
    status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error answer in the common shape."""
    detail = ErrorDetail(message=message, type=error_type(status), param=param, code=code)
    return JSONResponse(ErrorAnswer(error=detail).model_dump(), status, headers)


def install(app: FastAPI) -> None:
    """Make the app answer every exception in the common shape."""
    for kind in (RequestError, Rejected, EngineError, AdapterError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, no_answer)
    # The gate answers the faults of routes. This one is for a fault of the gate itself.
    app.add_exception_handler(Exception, _on_error)


async def no_answer(request: Request, error: Exception) -> Response:
    """Return an empty answer with status 499, as nginx counts it: the client has left and reads nothing."""
    return Response(status_code=499)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    return answer_error(request.scope, error)


def answer_error(scope: Scope, error: Exception) -> JSONResponse:
    """Return the answer to a request that ended in this error, and log a fault of the server."""
    status, detail = fault_detail(scope["path"], error)
    return JSONResponse(ErrorAnswer(error=detail).model_dump(), status, _headers_of(error))


def _headers_of(error: Exception) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, Overloaded | QuotaExceeded):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, QuotaExceeded):
        headers.update(error.headers)
    if isinstance(error, AccessError) and error.challenge is not None:
        headers["WWW-Authenticate"] = error.challenge
    return headers


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    """Return one answer that names all fields at fault, so that a client can correct them together."""
    problems, known = _of_one_form(request, cast(RequestValidationError, error).errors())
    # `loc` begins with body, query, path or header. A body that is not an object has no second part.
    if any(len(problem["loc"]) < 2 for problem in problems):
        message = "the body is not a JSON object; send one with Content-Type: application/json"
        return error_response(422, message, "invalid_request")
    faults = [*_of_names(problems, known), *_of_values(problems)]
    message = "; ".join(text for _, text in faults[:_MAX_FAULTS])
    if len(faults) > _MAX_FAULTS:
        message += f"; and {len(faults) - _MAX_FAULTS} more"
    return error_response(422, message, "invalid_request", faults[0][0])


def _of_one_form(request: Request, problems: Sequence[Any]) -> tuple[Sequence[Any], list[str]]:
    """Return the problems and the fields of the body; of several forms, those of the form that it seems to have.

    The `loc` of such a form's problems names the form after "body". It is removed here.
    """
    body = getattr(request.scope.get("route"), "body_field", None)
    if body is None:
        return problems, []
    forms = {tag.tag: form for form, tag in map(get_args, get_args(body.field_info.annotation))}
    tags = [p["loc"][1] for p in problems if p["loc"][0] == "body" and len(p["loc"]) > 1]
    if not forms or not tags:
        return problems, list(getattr(body.field_info.annotation, "model_fields", ()))
    untagged = [{**p, "loc": (p["loc"][0], *p["loc"][2:])} if p["loc"][0] == "body" else p for p in problems]
    return untagged, list(forms[tags[0]].model_fields)


def _of_names(problems: Sequence[Any], known: Sequence[str]) -> list[tuple[str, str]]:
    """Return the unknown fields of the body, then its missing ones, each with a message."""
    faults = []
    absent = [p for p in problems if p["type"] == "missing" and len(p["loc"]) == 2]
    missing = [_field_of(p) for p in absent]
    for problem in problems:
        if problem["type"] != "extra_forbidden" or len(problem["loc"]) != 2:
            continue
        name = str(problem["loc"][1])[:_MAX_NAME]
        meant = get_close_matches(name.lower(), known, 1, 0.75)
        missing = [field for field in missing if field not in meant]
        advice = f"did you mean {meant[0]!r}?" if meant else f"known: {', '.join(known)}"
        faults.append((name, f"unknown field {name!r}; {advice}"))
    if missing:
        are = "the field {} is missing; add it" if len(missing) == 1 else "the fields {} are missing; add them"
        faults.append((missing[0], are.format(" and ".join(repr(field) for field in missing))))
    return faults


def _of_values(problems: Sequence[Any]) -> list[tuple[str, str]]:
    """Return the fields with wrong values, each with a message."""
    wrong = [p for p in problems if p["type"] not in ("missing", "extra_forbidden") or len(p["loc"]) > 2]
    faults = []
    for field, group in groupby(wrong, key=_field_of):
        of_field = list(group)
        first = of_field[0]
        # A validator that reads several forms itself has one error, with a message about all of them.
        if field in _UNIONS and first["type"] != "value_error":
            faults.append(_of_union(field, of_field))
            continue
        param = ".".join(str(part)[:_MAX_NAME] for part in (field, *first["loc"][2:]))
        faults.append((param, f"{param}: {str(first['msg']).removeprefix('Value error, ')}"))
    return faults


def _field_of(problem: Mapping[str, Any]) -> str:
    """Return the field of a problem. The context names it where the check of one field concerns another."""
    return str(problem.get("ctx", {}).get("field", problem["loc"][1]))


def _of_union(field: str, problems: Sequence[Any]) -> tuple[str, str]:
    """Return the wrong key of the form that the input seems to have; without one, the field and its forms."""
    deepest = max(problems, key=lambda problem: len(problem["loc"]))
    # Besides keys and indices, `loc` holds the names of the forms that were tried.
    parts = [
        p for p in deepest["loc"][1:] if isinstance(p, int) or (p.isidentifier() and p not in ("str", "bool"))
    ]
    if len(parts) > 1 and isinstance(parts[-1], str):
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:_MAX_NAME]}" for part in parts)
        param = param.removeprefix(".")
        return param, f"{param}: {deepest['msg']}"
    return field, f"{field}: expected {_UNIONS[field]}"


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    # An error before any route is found has the form of the path too: tritonclient reads no other.
    return in_form_of(request.url.path, _of_http(request, cast(HTTPException, error)))


def _of_http(request: Request, http: HTTPException) -> JSONResponse:
    code = _HTTP_CODES.get(http.status_code, "http_error")
    message = str(http.detail)
    path = request.url.path if len(request.url.path) <= _MAX_PATH else f"{request.url.path[:_MAX_PATH]}…"
    if http.status_code == 404:
        message = f"there is no route {request.method} {path}; /docs lists the routes"
    elif http.status_code == 400 and isinstance(http.__cause__, OSError):
        # Starlette writes a large upload to a temporary file.
        message = (
            f"the server has no space to receive the body ({http.__cause__.strerror}); free some disk space on it"
        )
        return error_response(507, message, "store_full")
    elif http.status_code == 400:
        message, code = (
            f"the body is not a complete form within the limits ({message.rstrip('.')}); send the whole form, in "
            "several requests if it has many parts",
            "invalid_body",
        )
    elif http.status_code == 405:
        message = f"{path} does not support {request.method}; /docs lists the methods that it supports"
        return error_response(405, message, code, None, {"Allow": ", ".join(_methods_of(request))})
    headers = dict(http.headers) if http.headers else None
    return error_response(http.status_code, message, code, None, headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods of a path. Several routes may have the path, and Starlette names those of the first."""
    asked = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return [one for one, scope in asked.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]

"""The codes of the errors that routes document, and the meaning of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rootstock.adapters.errors import AdapterError
from rootstock.service.api.errors import RequestError, status_of
from rootstock.service.engine.core.errors import EngineError

# The key of an operation under which a route names its codes. The finished document does not hold it.
CODES = "x-error-codes"
# A code that stands for `rejected_` and the name of any check.
REJECTED = "rejected_<check>"

REFERENCE = (
    "unknown_adapter", "unknown_version", "unknown_alias", "no_live_version", "ambiguous_digest",
    "foundation_not_hosted", "invalid_reference", "registry_unavailable",
)  # fmt: skip
STORED = ("missing_bundle", "corrupt_bundle", "store_unavailable")
TEXT = (*REFERENCE, *STORED, "invalid_input", "request_too_large", "deadline_exceeded")
INFERENCE = (
    *TEXT, "wrong_task", "invalid_parameter", "input_too_long", "overloaded", "runner_fault", "draining",
    "invalid_composition",
)  # fmt: skip
ADAPTER = ("unknown_adapter", "registry_unavailable")
VERSION = (*ADAPTER, "unknown_version")
# A change needs an adapter of the caller's own tenant, and room on the registry's disk.
CHANGE = (*ADAPTER, "not_owner", "store_full")
CHANGE_OF_VERSION = (*VERSION, "not_owner", "store_full")
PUBLISHING = (
    REJECTED, "invalid_name", "store_full", "store_unavailable", "registry_unavailable", "invalid_parameter",
    "overloaded", "runner_fault", "draining", "deadline_exceeded", "stored_quota_exceeded",
)  # fmt: skip
KEY = ("registry_unavailable", "unknown_key")
NEW_KEY = ("registry_unavailable", "invalid_key", "foreign_tenant")

# The codes that no class of errors has, with their statuses and meanings.
_OTHERS = {
    "invalid_request": (422, "A field is unknown, missing or of a wrong value."),
    "invalid_body": (400, "The form is not complete."),
    "body_too_large": (413, "The body has more bytes than the route takes."),
    "foreign_site": (403, "A page of another site sent the request, and the server has no keys."),
    "unknown_host": (403, "The Host is not allowed, and the server has no keys."),
    "engine_ended": (503, "The engine has stopped after a fault."),
    "not_ready": (503, "The server starts or stops, or its engine has stopped."),
    "duplicate_header": (400, "A header that decides how a request is read came twice."),
    "no_upgrade": (400, "The request asks for a WebSocket, or offers another protocol beside a body."),
    "invalid_http": (400, "The request is not valid HTTP/1.1."),
    "request_timeout": (408, "The headers or the body took too long to arrive."),
    "too_many_connections": (503, "The server has as many connections as it takes, and all have requests."),
    "headers_too_large": (431, "The request line and headers have more than 65,536 bytes."),
    "internal_error": (500, "The server failed on this request."),
    REJECTED: (422, "The upload fails this check; docs/bundle-format.md lists the checks."),
}


def raises(*codes: str) -> dict[str, Any]:
    """Return the `openapi_extra` of a route whose errors have these codes, beside those that every route has."""
    return {CODES: list(codes)}


def meaning_of(code: str) -> tuple[int, str]:
    """Return the HTTP status and the meaning of a code. Raise KeyError for an unknown one.

    A class of errors states the meaning of its code in the first sentence of its docstring.
    """
    if code in _OTHERS:
        return _OTHERS[code]
    for kind in _kinds(AdapterError, EngineError, RequestError):
        if kind.code == code and kind.__doc__:
            return status_of(code), " ".join(kind.__doc__.partition("\n\n")[0].split())
    raise KeyError(code)


def _kinds(*roots: Any) -> Iterator[Any]:
    for kind in roots:
        yield kind
        yield from _kinds(*kind.__subclasses__())

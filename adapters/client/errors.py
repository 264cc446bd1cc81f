"""The errors between a client and a server. Every message is one printable line.

```
ClientError
├── Misused             an argument that the client cannot use; nothing was sent
├── Unreachable         no complete answer
│   └── TimedOut        no answer within the timeout
├── Unreadable          an answer that no Rootstock server gives
└── Refused             the server answered with an error: status, code, param, request_id
    ├── AccessDenied    401, 403    the key is missing or wrong
    ├── NotFound        404         the reference means nothing
    ├── StateConflict   409         the adapter's versions and aliases do not allow it
    ├── InvalidRequest  other 4xx   an input, parameter or size that the server does not take
    │   └── RejectedBundle    422   a check of an upload failed; `check` names it
    ├── ServerBusy      429, 503    try again after `retry_after` seconds
    └── ServerFault     other 5xx   a fault, or a deadline that passed (504)
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

_SHOWN = 1000
_REJECTED = "rejected_"
_ADVICE = {
    401: "give a key: --key, or ROOTSTOCK_ADMIN_KEY",
    403: "give the server's admin key: --key, or ROOTSTOCK_ADMIN_KEY",
}
# A 403 with another code has a cause that no stronger key removes, and its message states the remedy.
_KEY_CODES = {"missing_key", "wrong_key", None}


def one_line(text: object) -> str:
    """Return `text` on one line without control characters, cut after _SHOWN characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


class ClientError(Exception):
    """The base of all errors of a client; `advice` is the remedy, or empty if none is known."""

    advice = ""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Misused(ClientError):
    """The client got an address, key, folder or number that it cannot use; it sent nothing."""


class Unreachable(ClientError):
    """The server gave no complete answer: nothing listens there, it took too long, or the connection broke.

    `sent` is False if no connection was made, so that the server has seen nothing of the request.
    """

    advice = "is a server running there? Start one: rootstock serve"

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class TimedOut(Unreachable):
    """The server gave no complete answer within the timeout."""


class Unreadable(ClientError):
    """The answer is not one that a Rootstock server gives."""


class Refused(ClientError):
    """The server answered with an error.

    `code` is the server's stable code, and `param` is the parameter at fault. Both are None if something else
    answered, for instance a proxy. `request_id` is the id in the server's log. `retry_after` is in seconds. Each
    is None if the answer did not state it.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        param: str | None = None,
        *,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = one_line(message)
        self.param = param
        self.retry_after = retry_after
        self.request_id = request_id
        self.advice = "" if status == 403 and code not in _KEY_CODES else _ADVICE.get(status, "")


class AccessDenied(Refused):
    """The request has no key, or a key that does not allow this call (401, 403)."""


class NotFound(Refused):
    """The name, version, alias or digest does not exist (404)."""


class StateConflict(Refused):
    """The versions and aliases do not allow the change, or the digest is ambiguous (409)."""


class InvalidRequest(Refused):
    """The server does not take this input, parameter or size (400, 413, 415, 422)."""


class RejectedBundle(InvalidRequest):
    """An upload failed a check, and changed nothing. `docs/bundle-format.md` lists the checks."""

    @property
    def check(self) -> str:
        """Return the name of the check that failed."""
        return (self.code or "").removeprefix(_REJECTED)


class ServerBusy(Refused):
    """The queue is full (429), or the server starts or stops (503)."""


class ServerFault(Refused):
    """The server failed on the request (500 and above), or did not answer by its deadline (504)."""


def refusal(url: str, response: httpx.Response) -> Refused:
    """Return the error for an answer that is not a success, with the server's own message if there is one."""
    status, headers = response.status_code, response.headers
    facts: Any = {
        "retry_after": _seconds(headers.get("Retry-After")),
        "request_id": headers.get("X-Request-Id"),
    }
    if (detail := _detail(json_object(response))) is not None:
        return _refused(status, detail, **facts)
    target = f" to {headers['Location']}" if response.has_redirect_location else ""
    answer = f"{url} answered {status} {response.reason_phrase}".rstrip() + target
    message = f"{answer} with {kind_of(response)}: is this a Rootstock server?"
    return _class_of(status, None)(status, None, message, **facts)


def stated_error(document: Mapping[str, Any], status: int, request_id: str | None = None) -> Refused | None:
    """Return the error that a part of an answer states as `error`; None if it states none."""
    detail = _detail(document)
    return None if detail is None else _refused(status, detail, request_id=request_id)


def json_object(response: httpx.Response) -> dict[str, Any] | None:
    """Return the JSON object that an answer holds; None if it holds something else."""
    try:
        value = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def kind_of(response: httpx.Response) -> str:
    """Return a description, for a message, of the body of an answer that is not Rootstock's."""
    if not response.content:
        return "an empty body"
    kind = response.headers.get("Content-Type", "untyped content").partition(";")[0]
    return f"{kind} that is not Rootstock's"


@contextmanager
def unreachable(url: str, timeout: float) -> Iterator[None]:
    """Raise the errors of httpx as Unreachable or TimedOut. `timeout` is in seconds, for the message."""
    import httpx

    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise TimedOut(f"no connection to {url} within {timeout:g} s", sent=False) from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"no answer from {url} within {timeout:g} s") from error
    except httpx.ConnectError as error:
        raise Unreachable(f"cannot reach {url} ({error})", sent=False) from error
    except httpx.RequestError as error:
        raise Unreachable(f"the connection to {url} broke off before it had answered ({error})") from error


def _detail(document: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    detail = (document or {}).get("error")
    stated = isinstance(detail, dict) and isinstance(detail.get("message"), str) and detail["message"].strip()
    return detail if stated else None


def _refused(status: int, detail: Mapping[str, Any], **facts: Any) -> Refused:
    code, param = (None if detail.get(k) is None else str(detail[k]) for k in ("code", "param"))
    return _class_of(status, code)(status, code, detail["message"], param, **facts)


def _class_of(status: int, code: str | None) -> type[Refused]:
    if code is not None and code.startswith(_REJECTED):
        return RejectedBundle
    if (known := _CLASSES.get(status)) is not None:
        return known
    if status >= 500:
        return ServerFault
    return InvalidRequest if status >= 400 else Refused


_CLASSES = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    409: StateConflict,
    429: ServerBusy,
    503: ServerBusy,
}


def _seconds(header: str | None) -> float | None:
    """Return the seconds of a Retry-After; None for its other form, a date, which Rootstock never sends."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None

"""The errors between a client and a server. Every message is one printable line."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

_SHOWN = 1000
_ADVICE = {
    401: "give a key: --key, or ROOTSTOCK_ADMIN_KEY",
    403: "give the server's admin key: --key, or ROOTSTOCK_ADMIN_KEY",
}


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
    """The client got an address, key or folder that it cannot use; it sent nothing."""


class Unreachable(ClientError):
    """The server gave no complete answer: nothing listens there, it took too long, or the connection broke."""

    advice = "is a server running there? Start one: rootstock serve"


class Unreadable(ClientError):
    """The answer is not one that a Rootstock server gives."""


class Refused(ClientError):
    """The server answered with an error.

    `code` is the server's stable code, and `param` is the parameter at fault. Both are None if something else
    answered, for instance a proxy. `retry_after` is in seconds, or None if the answer did not state it.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        param: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = one_line(message)
        self.param = param
        self.retry_after = retry_after
        self.advice = _ADVICE.get(status, "")


def refusal(url: str, response: httpx.Response) -> Refused:
    """Return the error for an answer that is not a success, with the server's own message if there is one."""
    status, after = response.status_code, _seconds(response.headers.get("Retry-After"))
    error = (json_object(response) or {}).get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str) and error["message"].strip():
        code, param = (None if error.get(k) is None else str(error[k]) for k in ("code", "param"))
        return Refused(status, code, error["message"], param, retry_after=after)
    target = f" to {response.headers['Location']}" if response.has_redirect_location else ""
    answer = f"{url} answered {status} {response.reason_phrase}".rstrip() + target
    message = f"{answer} with {kind_of(response)}: is this a Rootstock server?"
    return Refused(status, None, message, retry_after=after)


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


def _seconds(header: str | None) -> float | None:
    """Return the seconds of a Retry-After; None for its other form, a date, which Rootstock never sends."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None

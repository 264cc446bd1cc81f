"""Checks of schemathesis that are stricter than its own, and the few answers that its own do not foresee."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import schemathesis
from schemathesis import Case, CheckContext
from schemathesis.core.transport import Response

# The codes of a 422 for a request that a JSON schema allows: they depend on the models that the server has, on
# its limits, or on grammars inside a text. `invalid_request`, for a field of a wrong form, is not among them.
BEYOND_A_SCHEMA = frozenset(
    {
        "wrong_task", "invalid_reference", "invalid_name", "invalid_parameter", "invalid_input", "input_too_long",
        "invalid_source", "source_unavailable", "invalid_key", "invalid_split", "invalid_shadow",
    }
)  # fmt: skip
# Messages of `invalid_request` that a request may get which the document allows, each with the reason.
INEXPRESSIBLE = (
    # A schema cannot say that a text holds a JSON object.
    r"the arguments of the call .* are not the text of a JSON object",
    # Two parts of a request: the query and the form.
    r"the body has both model and models",
    r"the field 'models?' is missing",
    # JSON Schema takes 1.0 for an integer, and the server does not.
    r"Input should be a valid integer",
    # The columns of a table decide whether its rows are inputs.
    r"^(instances|inputs|dataframe_(split|records))\b.*(expected a list of at least one string|Field required)",
)
# The end of a message about fields, where an error has a message alone.
ABOUT_FIELDS = "/docs lists the fields"


@schemathesis.check
def status_is_listed(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """Fail for a status that the operation does not list. Another method than its own has no list."""
    listed = case.operation.definition.raw["responses"]
    if case.method.lower() == case.operation.method.lower() and str(response.status_code) not in listed:
        raise AssertionError(f"the status {response.status_code} is not documented; documented: {sorted(listed)}")
    return None


@schemathesis.check
def refusal_of_a_valid_request_has_a_reason_beyond_the_schema(
    ctx: CheckContext, response: Response, case: Case
) -> bool | None:
    """Fail for a 422 with another code, if the request is one that the document allows."""
    meta = case.meta
    if response.status_code != 422 or meta is None or not meta.generation.mode.is_positive:
        return None
    error = json.loads(response.content)["error"]
    code, message = (_code(response), error["message"]) if isinstance(error, dict) else ("", error)
    beyond = code in BEYOND_A_SCHEMA or code.startswith("rejected_") or (not code and ABOUT_FIELDS not in message)
    if not beyond and not any(re.search(reason, message) for reason in INEXPRESSIBLE):
        raise AssertionError(f"the document allows this request, and the server refuses it: {code} {message}")
    return None


@schemathesis.check
def late_answer_was_asked_for(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """Fail for a 504 unless the request stated its own time, and the error says that this time has passed."""
    if response.status_code != 504:
        return None
    if not any(True for _ in _timeouts(response)):
        raise AssertionError("a 504 for a request that states no timeout")
    if (code := _code(response)) != "deadline_exceeded":
        raise AssertionError(f"a 504 has the code {code}")
    return None


def _code(response: Response) -> str:
    """Return the code of an error. The Open Inference Protocol has a message alone, which names the deadline."""
    error = json.loads(response.content)["error"]
    if isinstance(error, dict):
        return str(error["code"])
    return "deadline_exceeded" if re.search("not (answered|complete) (with)?in", error) else str(error)


def _timeouts(response: Response) -> Iterator[float]:
    """Yield the seconds that a request states, in its header, its query and its body."""
    request = response.request
    stated: list[Any] = [request.headers.get("X-Request-Timeout")]
    stated += parse_qs(urlsplit(request.url or "").query).get("timeout", [])
    with suppress(ValueError):
        body = json.loads(request.body or b"")
        stated += [body.get("timeout")] if isinstance(body, dict) else []
    for value in stated:
        with suppress(TypeError, ValueError):
            yield float(value)

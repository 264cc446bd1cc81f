"""The OpenAPI document of the app: FastAPI's own, with summaries, examples, errors and keys of each route."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from rootstock.adapters.registry.key_records import ROLES
from rootstock.service.api.document.error_codes import CODES, meaning_of
from rootstock.service.api.document.examples import BODIES, FORMS, PARAMETERS
from rootstock.service.api.document.tags import TAGS
from rootstock.service.api.errors import ErrorAnswer, ErrorDetail, error_type
from rootstock.service.api.middleware.keys import always_needs_key, required_role
from rootstock.service.api.options import HEADER, STICKY_HEADER
from rootstock.service.tenancy.access import Access

_ERROR = {"$ref": "#/components/schemas/ErrorAnswer"}
_JSON, _MULTIPART = "application/json", "multipart/form-data"
_BODY = ("invalid_json", "duplicate_key", "unsupported_media_type", "body_too_large")
_FORM = ("invalid_body", "unsupported_media_type", "body_too_large")
_KEYS = (
    "missing_key", "wrong_key", "expired_key", "revoked_key", "invalid_token", "issuer_unavailable",
    "quota_exceeded", "unknown_host",
)  # fmt: skip
# The errors of the protocol, before the path is known. They have the common form on every route.
_OUTSIDE = ("invalid_http", "request_timeout", "headers_too_large", "too_many_connections")
_ANY = (*_OUTSIDE, "duplicate_header", "no_upgrade", "internal_error")
_SENTENCE_END = re.compile(r"\.\s+")
_CODES = {tag.name: tag.codes for tag in TAGS}
_NO_KEY: dict[str, list[str]] = {}
# The security scheme of each role, from the least; a role may do what those before it may.
_SCHEMES = {
    "predict_key": {"type": "http", "scheme": "bearer", "description": "Allows inference and reading."},
    "publish_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "Allows publishing and deleting too.",
    },
    "admin_key": {"type": "http", "scheme": "bearer", "description": "Allows every call."},
}


class OpenApiDocument:
    """The app's OpenAPI document, made at the first call. Set it as the app's `openapi`.

    The keys of the running server decide which calls need one.
    """

    def __init__(self, app: FastAPI) -> None:
        self._original = app.openapi
        self._app = app
        self._document: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._document is None:
            self._document = self._completed(self._original())
        access = self._app.state.server.access
        for path, operations in self._document["paths"].items():
            for method, operation in operations.items():
                operation["security"] = _security(method.upper(), path, access)
        return self._document

    def _completed(self, document: dict[str, Any]) -> dict[str, Any]:
        components = document["components"]
        shapes = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"] |= shapes.pop("$defs") | {"ErrorAnswer": shapes}
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = _SCHEMES
        used: set[str] = set()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                codes = _codes(method, operation, required_role(method.upper(), path) is None)
                used.update(codes)
                _summarise(operation)
                _add_sticky_header(operation)
                _leave_out_null(operation, components["schemas"])
                _add_examples(f"{method.upper()} {path}", operation)
                _add_errors(operation, codes)
        components["examples"] = {_component(code): _example(code) for code in sorted(used)}
        return document


def _security(method: str, path: str, access: Access) -> list[dict[str, list[str]]]:
    """Return the keys that allow a call; an empty object among them means that it needs none here."""
    role = required_role(method, path)
    if role is None:
        return []
    keys: list[dict[str, list[str]]] = [{name: []} for name in list(_SCHEMES)[ROLES.index(role) :]]
    needed = access.required or (not access.none and always_needs_key(path, role))
    return [*([] if needed else [_NO_KEY]), *keys]


def _summarise(operation: dict[str, Any]) -> None:
    """Make the first sentence of the description the summary, which is plain text and not Markdown."""
    first, *rest = _SENTENCE_END.split(operation.pop("description"), maxsplit=1)
    operation["summary"] = " ".join(first.split()).removesuffix(".").replace("`", "")
    if rest:
        operation["description"] = rest[0]


def _add_sticky_header(operation: dict[str, Any]) -> None:
    """Document the header X-Request-Key beside the header of the timeout. No route declares it."""
    parameters = operation.get("parameters", ())
    if any(parameter["name"] == HEADER for parameter in parameters):
        parameters.append(
            {
                "name": STICKY_HEADER,
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "Requests with equal values get equal versions under an alias with a split.",
            }
        )


def _leave_out_null(operation: dict[str, Any], components: Mapping[str, Any]) -> None:
    """Remove null from the types of parameters and form fields: they can leave a value out, but not hold null."""
    schemas = [parameter["schema"] for parameter in operation.get("parameters", ())]
    form = operation.get("requestBody", {}).get("content", {}).get(_MULTIPART, {}).get("schema", {})
    form = components[form["$ref"].rpartition("/")[2]] if "$ref" in form else form
    for schema in (*schemas, *form.get("properties", {}).values()):
        kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            schema.update(kinds[0])
        elif kinds:
            schema["anyOf"] = kinds


def _codes(method: str, operation: dict[str, Any], is_open: bool) -> list[str]:
    """Return the codes of a route's errors: its own, its tag's, and those of its body, parameters and keys."""
    codes = list(operation.pop(CODES, ()))
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        codes += _CODES[operation["tags"][0]]
        codes += [*(_BODY if _JSON in content else ()), *(_FORM if _MULTIPART in content else ())]
    if content or operation.get("parameters"):
        codes.append("invalid_request")
    if not is_open:
        codes += [*_KEYS, *(["foreign_site"] if method != "get" else [])]
    return list(dict.fromkeys([*codes, *_ANY]))


def _add_errors(operation: dict[str, Any], codes: Iterable[str]) -> None:
    """Document each status of the errors. A route whose `default` has another form keeps that form."""
    responses = operation["responses"]
    responses.pop("422", None)
    plain = responses.get("default", {}).get("content", {}).get("application/json")
    statuses: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for code in codes:
        status, meaning = meaning_of(code)
        statuses[status].append((code, meaning))
    for status, meanings in sorted(statuses.items()):
        responses[str(status)] = {
            "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in meanings),
            "content": {"application/json": _form([code for code, _ in meanings], plain)},
        }
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            responses[str(status)]["headers"] = {
                "Retry-After": {
                    "description": "Seconds until the call may succeed.",
                    "schema": {"type": "integer"},
                }
            }
    responses.setdefault("default", {"content": {"application/json": {"schema": _ERROR}}})
    responses["default"]["description"] = "Any other error."


def _form(codes: Sequence[str], plain: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the schema and the examples of errors. A route may have a `plain` form for its own errors."""
    common = [code for code in codes if plain is None or code in _OUTSIDE]
    if plain is not None and not common:
        return plain
    examples = {code: {"$ref": f"#/components/examples/{_component(code)}"} for code in common}
    both = plain is not None and len(common) < len(codes)
    return {"schema": {"anyOf": [plain["schema"], _ERROR]} if plain and both else _ERROR, "examples": examples}


def _component(code: str) -> str:
    """Return the code as a name of a component, which allows no angle brackets."""
    return code.replace("<", "").replace(">", "")


def _example(code: str) -> dict[str, Any]:
    status, meaning = meaning_of(code)
    detail = ErrorDetail(message=meaning, type=error_type(status), param=None, code=code)
    return {"summary": code, "value": ErrorAnswer(error=detail).model_dump()}


def _add_examples(route: str, operation: dict[str, Any]) -> None:
    """Add the examples of the body and of the parameters."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        bodies: Mapping[str, Any] = (FORMS if media_type == _MULTIPART else BODIES).get(route, {})
        if bodies and media_type in (_JSON, _MULTIPART):
            content["examples"] = {title: {"summary": title, "value": body} for title, body in bodies.items()}
    values = {**PARAMETERS[""], **PARAMETERS.get(route, {})}
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]

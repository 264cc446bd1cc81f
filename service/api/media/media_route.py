"""The reading of a body that is a file, or a form with files, as if it were the JSON body of the same request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jiter import from_json
from starlette.datastructures import UploadFile
from starlette.requests import Request

from rootstock.adapters.media import MediaModality, modality_of_bytes, modality_of_type
from rootstock.service.api.body import BodyRoute, declared_type, parse_json
from rootstock.service.api.errors import InvalidBody, UnsupportedBody
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter

_FORM = "multipart/form-data"
# The types that say nothing about a body. huggingface_hub's client declares none for bytes.
_UNSPECIFIC = ("", "application/octet-stream")
# The names of a form's files. Each may come several times.
_FILES = ("file", "files", "image", "audio")
_MOST_FILES = 256
_JSON_FIELDS = ("parameters", "timeout", "adapters")


class MediaRoute(BodyRoute):
    """A route that reads JSON, a form with files, or one file whose other fields are in the query.

    A body that is JSON is read as JSON unless it is declared as an image or a recording.
    """

    async def read(self, request: Request) -> Any:
        """Return the value of the body: for files an object with `inputs` and the other fields."""
        declared = declared_type(request)
        modality = modality_of_type(declared)
        raw = await request.body()
        if modality is None:
            try:
                return parse_json(raw)
            except InvalidBody as error:
                if declared == _FORM and raw.strip():
                    return await _read_form(request)
                modality = modality_of_bytes(raw) if declared in _UNSPECIFIC else None
                if modality is None:
                    raise self.refusal(raw, declared, error) from None
        fields = _fields(request.query_params.multi_items())
        if "inputs" in fields:
            raise InvalidInput("the query has inputs, and the body is a file; send one of the two", "inputs")
        return {"inputs": {modality: raw}, **fields}

    def refusal(self, raw: bytes, declared: str, error: InvalidBody) -> InvalidBody | UnsupportedBody:
        """Return the error of a body that is no JSON, which names the other types that the route takes."""
        other = super().refusal(raw, declared, error)
        if isinstance(other, UnsupportedBody):
            return UnsupportedBody(f"{other}, or a file as image/… or audio/…, or files as {_FORM}")
        return other


async def _read_form(request: Request) -> Any:
    """Return the fields of a form, and its files as `inputs` in their order."""
    fields: list[tuple[str, str]] = request.query_params.multi_items()
    inputs = []
    async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FILES) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.append((name, value))
            elif name in _FILES:
                data = await value.read()
                inputs.append({_modality(name, value, data): data})
            else:
                raise InvalidInput(
                    f"the form has a file under {name[:64]!r}; send files under {', '.join(_FILES)}", name[:64]
                )
    body = _fields(fields)
    if inputs and "inputs" in body:
        raise InvalidInput("the form has both inputs and files; send one of the two", "inputs")
    if not inputs and "inputs" not in body:
        raise InvalidInput(f"the form has no file; send one under {', '.join(_FILES)}", "file")
    return {**body, "inputs": inputs} if inputs else body


def _modality(name: str, part: UploadFile, data: bytes) -> MediaModality:
    """Return what a part is by its type, its name or its first bytes, in this order."""
    if (declared := modality_of_type(part.content_type)) is not None:
        return declared
    if (named := modality_of_type(name)) is not None:
        return named
    if (found := modality_of_bytes(data)) is not None:
        return found
    raise InvalidInput(
        f"the file under {name!r} has no Content-Type and no beginning of an image or a recording; send it under "
        "image or audio",
        name,
    )


def _fields(given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a form or a query as those of a JSON body. Only `models` may be repeated."""
    fields: dict[str, Any] = {}
    for name, text in given:
        if name == "models":
            fields.setdefault(name, []).append(text)
        elif name in fields:
            raise InvalidParameter(f"{name[:64]} is given twice; give it once", name[:64])
        else:
            fields[name] = _value(name, text) if name in _JSON_FIELDS else text
    return fields


def _value(name: str, text: str) -> Any:
    try:
        return from_json(text.encode(), allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise InvalidParameter(f"{name} is not JSON: {error}; send it as JSON", name) from None

"""The adapters that a request names, read from its path, its query and the beginning of its body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from jiter import from_json
from python_multipart.multipart import parse_options_header

from rootstock.adapters.reference import FOUNDATION, is_auto, is_name

# The bytes of a body that are looked at. A name that comes later is not seen, and the request may go anywhere.
MOST_BYTES = 2**18
_MOST_QUERY = 2**12
# The parts of a form that are looked at, the bytes of a part's headers, and those of the longest reference.
_MOST_PARTS = 128
_MOST_HEAD = 2**10
_MOST_REFERENCE = 300
# RFC 2046 allows no longer boundary.
_MOST_BOUNDARY = 70
_MOST_CONTENT_TYPE = 2**10
_FIELDS = (b'name="model"', b'name="models"')
_OPEN_INFERENCE = re.compile(r"/v2/models/([^/]+)")
_KSERVE = re.compile(r"/v1/models/(.+):predict")
_OF_MODEL = re.compile(r"/models/(.+)")
_PIPELINE = re.compile(r"/pipeline/[^/]+/?$")
# The last parts of the paths of text-embeddings-inference, under the address of one model.
_ENDINGS = frozenset(
    ("embed", "embed_all", "predict", "rerank", "similarity", "decode", "info", "tokenize", "classify")
)


def named_models(
    path: str, query: bytes, content_type: str, body: bytes, served_names: Mapping[str, str] | None = None
) -> list[str]:
    """Return the names of the adapters of a request, without tenants and versions; none if it names none.

    All versions of an adapter have one name, so that they share a replica. The foundation and the router are in
    every replica. `served_names` are other names of models, in lower case. A body that cannot be read names
    nothing: the replica that gets it refuses it.
    """
    known = served_names or {}
    given = _in_path(path) or _in_query(query) or _in_body(content_type, body)
    names = (_name(known.get(reference.lower(), reference)) for reference in given)
    return [name for name in dict.fromkeys(names) if is_name(name) and name != FOUNDATION and not is_auto(name)]


def _name(reference: str) -> str:
    return reference.partition("@")[0].rpartition("/")[2]


def _in_path(path: str) -> list[str]:
    for pattern in (_OPEN_INFERENCE, _KSERVE):
        if found := pattern.match(path):
            return [unquote(found[1])]
    if found := _OF_MODEL.match(path):
        parts = _PIPELINE.sub("", unquote(found[1])).rstrip("/").split("/")
        if len(parts) > 1 and parts[-1] in _ENDINGS:
            parts.pop()
        return ["/".join(parts)]
    return []


def _in_query(query: bytes) -> list[str]:
    if b"model" not in query or len(query) > _MOST_QUERY:
        return []
    fields = parse_qsl(query.decode("latin-1"))
    return [value for name, value in fields if name in ("model", "models")]


def _in_body(content_type: str, body: bytes) -> list[str]:
    start = body[:MOST_BYTES]
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        return list(_in_form(content_type, start)) if len(content_type) <= _MOST_CONTENT_TYPE else []
    if not start.lstrip(b" \t\r\n").startswith(b"{"):
        return []
    try:
        # A body that is longer than what is looked at ends in the middle of a value.
        value = from_json(start, partial_mode="on" if len(body) > MOST_BYTES else False)
    except ValueError:
        return []
    return list(_in_object(value))


def _in_form(content_type: str, start: bytes) -> Iterator[str]:
    """Yield the values of the fields `model` and `models`. The time is linear in the length of the form."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MOST_BOUNDARY:
        return
    # The last piece has no end yet, or is what follows the form.
    for part in start.split(b"--" + boundary, _MOST_PARTS)[:-1]:
        head, _, value = part[: _MOST_HEAD + _MOST_REFERENCE].partition(b"\r\n\r\n")
        reference = value.removesuffix(b"\r\n")
        whole = len(part) <= _MOST_HEAD + _MOST_REFERENCE and len(reference) <= _MOST_REFERENCE
        if whole and any(field in head for field in _FIELDS):
            yield reference.decode("utf-8", "replace")


def _in_object(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    if isinstance(value.get("model"), str):
        yield value["model"]
    yield from (one for one in _list(value.get("models")) if isinstance(one, str))
    for part in _list(value.get("adapters")):
        if isinstance(part, dict) and isinstance(part.get("model"), str):
            yield part["model"]


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()

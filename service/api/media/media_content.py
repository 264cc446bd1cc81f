"""The bodies of files in the OpenAPI document, which FastAPI cannot derive from a route's function."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "items": _FILE}
_WORKS = "Only for a body that is a file or a form: "
# The fields beside the files. In a form and in a query they are texts.
_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "model": (_TEXT, "the reference."),
    "models": ({"type": "array", "items": _TEXT}, "several references, each in a field with this name."),
    "adapters": (_TEXT, "the parts of a composition, as a JSON list."),
    "head": (_TEXT, "the part of the composition that answers."),
    "task": (_TEXT, "one of the foundation's tasks."),
    "parameters": (_TEXT, "the parameters of the task, as a JSON object."),
    "priority": (_TEXT, "the priority in the queue."),
    "timeout": (_TEXT, "the seconds until a 504."),
}


def media_bodies(*fields: str) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that also reads files, beside which it takes these fields."""
    taken = {name: _FIELDS[name] for name in fields}
    form = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: {**schema, "description": text} for name, (schema, text) in taken.items()},
            **dict.fromkeys(("file", "files", "image", "audio"), _FILES),
        },
    }
    raw = {"schema": _FILE}
    content = {"multipart/form-data": {"schema": form}, "image/*": raw, "audio/*": raw}
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": _WORKS + text}
        for name, (schema, text) in taken.items()
    ]
    return {"requestBody": {"content": content}, "parameters": query}

"""The base of every JSON object in a request: unknown keys are refused, and its size is limited."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rootstock.service.engine.core.errors import InvalidInput, TooLarge

# Each unknown key is one error, and each error takes more memory than its key.
MAX_KEYS = 64
# The limit of any list, checked before its items are. `max_inputs` can be at most this.
MAX_ITEMS = 2**14


def one_of(**types: str) -> dict[str, Any]:
    """Return the part of a JSON schema which says that an object has one of these fields, of its type, alone."""
    return {
        "oneOf": [
            {
                "required": [name],
                "properties": {field: {"type": types[field] if field == name else "null"} for field in types},
            }
            for name in types
        ]
    }


def at_least_one(**types: str) -> dict[str, Any]:
    """Return the part of a JSON schema which says that an object has one or more of these fields, of its type."""
    return {"anyOf": [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in types.items()]}


class Strict(BaseModel):
    """A JSON object of a request. Unknown keys are refused. Too many keys or items are refused unchecked."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_small(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > MAX_KEYS:
            raise InvalidInput(
                f"an object has {len(value)} keys; the limit is {MAX_KEYS}; leave out the unknown ones"
            )
        for name, items in value.items():
            if isinstance(items, list) and len(items) > MAX_ITEMS:
                raise TooLarge(
                    f"{name[:64]} has {len(items)} items; the limit of any list is {MAX_ITEMS}; send at most "
                    "max_inputs of /v1/limits",
                    name[:64],
                )
        return value

"""Reads the JSON of a bundle's member: UTF-8, without repeated keys, and not nested without limit."""

from __future__ import annotations

import json
from typing import Any

from rootstock.adapters.spec import Rejected

_MAX_DEPTH = 32


def read_json(data: bytes, member: str) -> dict[str, Any]:
    """Return the JSON object in a member's bytes; raise Rejected as `read_value` does, and for another value."""
    value = read_value(data, member)
    if not isinstance(value, dict):
        raise Rejected("schema", member, f"holds {type(value).__name__}, not an object")
    return value


def read_value(data: bytes, member: str) -> Any:
    """Return the JSON value in a member's bytes.

    Raise Rejected (check "schema") that names the member and the position.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=unique_keys)
        _check_depth(value)
        # This refuses values that JSON's grammar allows and UTF-8 JSON cannot hold: 1e999, half a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise Rejected("schema", member, f"nested more than {_MAX_DEPTH} deep") from None
    except ValueError as error:
        raise Rejected("schema", member, f"not JSON in UTF-8: {error}") from None
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for v in level
            if isinstance(v, dict | list)
            for child in (v.values() if isinstance(v, dict) else v)
        ]
    if level:
        raise RecursionError


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's members as a dict; raise ValueError if a key is there twice.

    Pass this as `object_pairs_hook` to `json.loads`.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value

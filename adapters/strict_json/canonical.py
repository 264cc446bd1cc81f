"""Writes JSON by RFC 8785 (JSON Canonicalization Scheme): one value has one byte form, and so one digest."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

_MAX_SAFE_INTEGER = 2**53 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
# One encoder for all strings: `json.dumps` would create one for each, at ten times the cost of the writing.
_write_string = json.JSONEncoder(ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Raise ValueError for a value that JSON or an IEEE 754 double cannot hold.
    """
    return _encode(value).encode("utf-8")


def digest_of(value: Any) -> str:
    """Return `sha256:<64 hex>` over the canonical form of a JSON value."""
    return sha256(canonical(value))


def sha256(data: bytes) -> str:
    """Return `sha256:<64 hex>` over bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _encode(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        if not value.isascii() and _SURROGATE.search(value):
            raise ValueError(f"{value!r} holds half a surrogate pair, which UTF-8 cannot hold")
        return _write_string(value)
    if isinstance(value, int):
        if abs(value) > _MAX_SAFE_INTEGER:
            raise ValueError(f"{value} is outside the integers that a JSON number holds exactly (2^53 - 1)")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_encode(v) for v in value) + "]"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"object key {key!r} is not a string")
        # The RFC prescribes UTF-16 order. A lone surrogate passes here and is refused when its key is encoded.
        keys = sorted(value, key=lambda k: k.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_encode(k)}:{_encode(value[k])}" for k in keys) + "}"
    raise ValueError(f"{type(value).__name__} is not a JSON type")


def _number(value: float) -> str:
    """Return a number as ECMAScript's Number::toString (ECMA-262 §6.1.6.1.20), which RFC 8785 prescribes.

    Python's repr gives the same shortest digits, but puts the point or exponent in other places.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole.lstrip("0")) if whole.strip("0") else len(fraction.lstrip("0")) - len(fraction)
    point += int(exponent or 0)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    power = point - 1
    tail = "." + digits[1:] if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"

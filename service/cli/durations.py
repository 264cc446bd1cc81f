"""Lengths and points of time in the options of commands."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from rootstock.adapters.errors import InvalidKey
from rootstock.adapters.reference import shown

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)


def length_of_time(text: str) -> timedelta:
    """Return the length that a text such as `90d` writes. Raise InvalidKey for any other text."""
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise InvalidKey(f"{shown(text)} is no length of time; give a number and s, m, h, d or w, such as 90d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def point_of_time(text: str, now: datetime) -> datetime:
    """Return the time that a text writes: a length from now, or a date or time of ISO 8601 in UTC by default."""
    if _LENGTH.fullmatch(text):
        return now + length_of_time(text)
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidKey(
            f"{shown(text)} is no time; give a length such as 90d, or a date such as 2030-01-31"
        ) from None

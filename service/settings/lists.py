"""Lists in a setting."""

from __future__ import annotations


def split(text: str) -> tuple[str, ...]:
    """Return the parts of a list that commas separate, without spaces around them, empty parts and duplicates."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))

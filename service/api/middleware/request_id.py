"""The request id: the client's X-Request-Id if it is well formed, a new one otherwise."""

from __future__ import annotations

import re
import uuid

_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


def choose_request_id(header: bytes | None) -> str:
    """Return the header's value if it is 1 to 128 visible ASCII characters, else a random id in hex."""
    text = (header or b"").decode("latin-1")
    return text if _WELL_FORMED.fullmatch(text) else uuid.uuid4().hex

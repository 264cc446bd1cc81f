"""The reading of a request's headers: those that decide anything may come once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

# Of these headers a server, a proxy before it and a library may each take another one of two.
_ONCE = frozenset(
    (
        b"authorization", b"content-encoding", b"content-length", b"content-type", b"host",
        b"inference-header-content-length", b"origin", b"transfer-encoding",
    )
)  # fmt: skip
_READ = _ONCE | {b"upgrade", b"x-request-id"}
# A Content-Length of more digits is no number that a body can have; int() takes no more than 4,300.
_MOST_DIGITS = 18


@dataclass(slots=True)
class RequestHead:
    """The headers of a request that the gate reads, by name; `twice` is one that came twice and may not."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    twice: bytes | None = None

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
        """Read the headers of a scope, whose names are in lower case."""
        head = cls()
        for name, value in headers:
            if name in _READ:
                if name in head.values and name in _ONCE:
                    head.twice = name
                head.values[name] = value
        return head

    @property
    def body_bytes(self) -> int:
        """Return the size that Content-Length states, in bytes; 0 if it states none."""
        digits = self.values.get(b"content-length", b"")
        if not digits.isdigit():
            return 0
        digits = digits.lstrip(b"0")
        return int(digits or b"0") if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS

    @property
    def refusal(self) -> tuple[int, str, str] | None:
        """Return status, code and message if no route may see this request, else None."""
        if self.twice is not None:
            return (
                400,
                "duplicate_header",
                f"the request has the header {self.twice.decode('ascii').title()} twice; send it once",
            )
        if self.values.get(b"upgrade", b"").lower() == b"websocket":
            return (
                400,
                "no_upgrade",
                "this server takes no WebSocket; send a plain HTTP request, with `stream` for a stream of events",
            )
        return None

"""The terms on which a request is served."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.service.engine.core.work import Priority


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The tenant, the urgency, and the seconds that an answer is of use (None: while the server waits)."""

    tenant: str = ""
    priority: Priority = "normal"
    timeout_s: float | None = None

    def deadline(self, arrived: float, most_s: float) -> float:
        """Return when a request that arrived then expires, on a server that waits for so many seconds."""
        return arrived + (most_s if self.timeout_s is None else min(self.timeout_s, most_s))


DEFAULT_OPTIONS = RequestOptions()

"""Define the options of a request: its tenant, its priority and its timeout."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.service.engine.core.work import Priority


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """A request's tenant, its priority, and its timeout in seconds (None: the server's own timeout)."""

    tenant: str = ""
    priority: Priority = "normal"
    timeout_s: float | None = None

    def deadline(self, arrived: float, most_s: float) -> float:
        """Return the time at which a request expires: at most `most_s` seconds after it `arrived`."""
        return arrived + (most_s if self.timeout_s is None else min(self.timeout_s, most_s))


DEFAULT_OPTIONS = RequestOptions()

"""The record of each request: its metrics, the end of its span and a log line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.types import Scope

from rootstock.service.api.middleware.keys import OPEN_PATHS
from rootstock.service.api.server import Server

if TYPE_CHECKING:
    from rootstock.service.telemetry.tracing import RequestSpan


class AccessLog:
    """The log of requests that have ended: a line each at level info, for health checks and scrapes at debug."""

    def __init__(self) -> None:
        self._log = structlog.get_logger().bind()

    def record(self, scope: Scope, server: Server, span: RequestSpan | None, status: int, seconds: float) -> None:
        """Count a request under its route's template, end its span and log it."""
        template = getattr(scope.get("route"), "path", "other")
        server.metrics.answered(template, status, seconds)
        if span is not None:
            span.end(template, status)
        # An orchestrator and Prometheus ask every few seconds, and their lines would hide those of users.
        write = self._log.debug if scope["path"] in OPEN_PATHS else self._log.info
        write("request", method=scope["method"], route=template, status=status, ms=round(seconds * 1e3, 1))

"""The errors of a cluster, each with a stable code."""

from __future__ import annotations

from rootstock.service.engine.core.errors import EngineError


class ReplicaLost(EngineError):
    """A replica that ended while it computed a request, or that cannot be reached."""

    code = "replica_lost"

"""The choice of who is at fault in a failed request: the version, the request or the server."""

from __future__ import annotations

from typing import Literal

from rootstock.adapters.errors import AdapterError, CorruptBundle, MissingBundle
from rootstock.adapters.spec import Rejected
from rootstock.service.engine.core.errors import Draining, EngineError, Expired, Overloaded, RunnerFault

Blame = Literal["version", "request", "server"]
# The codes of generated answers that ended by a fault of the version.
FAULT_CODES = frozenset({RunnerFault.code, CorruptBundle.code, MissingBundle.code})


def blame_of(error: BaseException, own_timeout: bool) -> Blame:
    """Return who is at fault in an error. `own_timeout` tells whether the request set its own timeout.

    A client could make any version miss a timeout that it sets, so that is no fault of the version. Neither are a
    full queue, a stop, or a registry or a store that is away.
    """
    if isinstance(error, Expired):
        return "server" if own_timeout else "version"
    if isinstance(error, RunnerFault | CorruptBundle | MissingBundle):
        return "version"
    if isinstance(error, Overloaded | Draining | AdapterError):
        return "server"
    return "request" if isinstance(error, EngineError | Rejected) else "version"

"""Define the errors of routing: `code` is stable, and `param` names the part of the request at fault."""

from __future__ import annotations

from rootstock.service.engine.core.errors import EngineError


class NoRouter(EngineError):
    """The server has no selector, and the request names none."""

    code = "no_router"


class InvalidSelector(EngineError):
    """The selector is no adapter that gives a text one label with a probability."""

    code = "invalid_selector"


class NoRoute(EngineError):
    """The selector is not sure enough of any adapter for the text, and there is no fallback."""

    code = "no_route"


class InvalidRoute(EngineError):
    """The selector's label, or the fallback, is no adapter that can answer the request."""

    code = "invalid_route"

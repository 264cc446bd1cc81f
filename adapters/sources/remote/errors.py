"""The errors of an adapter at an address."""

from __future__ import annotations

from rootstock.adapters.errors import AdapterError


class InvalidSource(AdapterError):
    """The text is not the address of an adapter."""

    code = "invalid_source"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="source")


class SourceNotAllowed(AdapterError):
    """The server may not fetch from this host, or may fetch nothing."""

    code = "source_not_allowed"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="source")


class SourceUnavailable(AdapterError):
    """The address leads to no adapter that can be fetched now, or to another one than its digest states."""

    code = "source_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="source")

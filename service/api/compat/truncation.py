"""Truncation by default, for the APIs whose servers truncate unasked."""

from __future__ import annotations

from typing import Any

from rootstock.service.api.predict import TruncationFields


class DefaultTruncation(TruncationFields):
    """The truncation of inputs that are too long, unless `truncation` is false."""

    @property
    def truncation_parameters(self) -> dict[str, Any]:
        """Return the truncation fields that the request has; without one, inputs are truncated."""
        return super().truncation_parameters or {"truncation": True}

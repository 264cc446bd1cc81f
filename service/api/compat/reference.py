"""The model of a request whose API has no field for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from rootstock.service.engine.core.catalog import FOUNDATION


def _reference(
    request: Request,
    model: Annotated[
        str | None, Query(description="Reference of the model; by default the first foundation.")
    ] = None,
) -> str:
    """Return the reference in the path, else that of `?model=`, else the first foundation's."""
    in_path: str | None = request.path_params.get("reference")
    return in_path or model or FOUNDATION


Reference = Annotated[str, Depends(_reference)]

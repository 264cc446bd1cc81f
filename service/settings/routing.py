"""The router: its selector, and what answers a text that the selector is not sure about."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from rootstock.adapters.errors import InvalidReference
from rootstock.adapters.reference import FOUNDATION, Reference, is_auto
from rootstock.adapters.served_names import lowered


class RoutingSettings(BaseSettings):
    """The router: its selector, and what answers a text that the selector is not sure about."""

    router: str = Field(
        "",
        description='Reference of the selector that answers `"model": "auto"`: a text-classification adapter '
        "whose labels are references of adapters. If empty, a request names its selector.",
    )
    router_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Lowest score of the selector, from 0 to 1, at which its label answers. A request may state "
        "another.",
    )
    router_fallback: str = Field(
        "",
        description="Reference that answers a text whose label is `none` or whose score is below the threshold. "
        "If empty, such a text gets an error.",
    )

    @field_validator("router", "router_fallback")
    @classmethod
    def _names_an_adapter(cls, reference: str) -> str:
        if not reference:
            return reference
        if is_auto(reference):
            raise ValueError(f"{reference!r} is the router itself; name an adapter or a foundation")
        try:
            parsed = Reference.parse(lowered(reference))
        except InvalidReference as error:
            raise ValueError(str(error)) from None
        return str(parsed)

    @model_validator(mode="after")
    def _selects_with_an_adapter(self) -> Self:
        if self.router == FOUNDATION:
            raise ValueError(f"ROOTSTOCK_ROUTER is {FOUNDATION}, which has no labels; name a selector adapter")
        return self

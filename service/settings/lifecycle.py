"""How long deleted versions can come back, how many versions stay, and who makes a version live."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class LifecycleSettings(BaseSettings):
    """How long deleted versions can come back, how many versions stay, and who makes a version live."""

    undelete_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="Days in which a deleted version can come back. Its bytes stay as long. 0: they go at once.",
    )
    keep_versions: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Newest versions of an adapter that stay after a publication. Older ones are deleted, unless "
        "an alias, a split, a shadow or the next rollback needs them. 0: all stay.",
    )
    approval: Literal["none", "admin", "second"] = Field(
        "none",
        description="Who moves `live` to a version: `none`: every key of the role `publish`; `admin`: keys of "
        "the role `admin` alone; `second`: another key than the one that published it.",
    )

"""The address, the HTTP server, the log, and how the server stops."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class ListenerSettings(BaseSettings):
    """The address, the HTTP server, the log, and how the server stops."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any but loopback needs `ROOTSTOCK_ADMIN_KEY`, a key in the registry, "
        "or `ROOTSTOCK_OIDC_ISSUER`.",
    )
    port: int = Field(3000, ge=1, le=65535, description="TCP port to listen on.")
    server: Literal["bentoml", "uvicorn"] = Field(
        "bentoml", description="HTTP server that runs the app: `bentoml` or `uvicorn`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged: `debug`, `info`, `warning` or `error`."
    )
    gateway_metrics: Literal["off", "admin", "open"] = Field(
        "off",
        description="Metrics for a gateway that routes by adapter, in vLLM's names: `off`; `admin`: the lists of "
        "adapters need the admin key; `open`: everyone gets the lists, of the tenant `default` alone.",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds from a stop signal, when /readyz turns 503, until the listener closes. 0: it closes "
        "at once.",
    )
    grace_period: float = Field(
        30.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that admitted requests get to finish after the listener has closed.",
    )

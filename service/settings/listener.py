"""The address, the HTTP server, the log, and how the server stops."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, model_validator
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
    processes: int = Field(
        1,
        description="Processes that serve the home together behind the one port, at most one for each core. Each "
        "has its own engine, queue and memory for adapters.",
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

    @model_validator(mode="after")
    def _processes_that_fit(self) -> Self:
        cores = len(os.sched_getaffinity(0))
        if not 1 <= self.processes <= max(1, cores):
            raise ValueError(
                f"ROOTSTOCK_PROCESSES is {self.processes}, and the server may use {cores} cores; give 1 to "
                f"{cores}, because more processes than cores only take turns"
            )
        if self.processes > 1 and self.gateway_metrics != "off":
            raise ValueError(
                f"ROOTSTOCK_PROCESSES is {self.processes} and ROOTSTOCK_GATEWAY_METRICS is "
                f"{self.gateway_metrics}: a gateway reads one series of a server, and cannot choose one of its "
                "processes; set one of the two back, and run several servers behind the gateway"
            )
        return self

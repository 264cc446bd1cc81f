"""Requests of several tenants to one server, for tests that need no keys."""

from __future__ import annotations

from typing import Any, cast

import httpx
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rootstock.service.tenancy.principal import Principal, Role
from tests.live_server import RunningServer

TENANT, ROLE, KEY = "X-Test-Tenant", "X-Test-Role", "X-Test-Key"


class HeaderPrincipals:
    """A middleware inside the gate: it believes the headers of a request about whom it is from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (tenant := headers.get(TENANT)) is not None:
                role = cast(Role, headers.get(ROLE, "publish"))
                scope["state"]["principal"] = Principal(tenant, role, headers.get(KEY, ""))
        await self.app(scope, receive, send)


def believe_headers(app: FastAPI) -> None:
    """Make an app that has not started take the tenant of each request from its headers."""
    # The last middleware is the innermost one.
    app.user_middleware.append(Middleware(HeaderPrincipals))


def client_of(server: RunningServer, tenant: str, **more: Any) -> httpx.Client:
    """Return a client whose requests are from a tenant, with the headers `role` and `key`."""
    client = server.client()
    client.headers[TENANT] = tenant
    for name, value in more.items():
        client.headers[f"X-Test-{name.title()}"] = value
    return client

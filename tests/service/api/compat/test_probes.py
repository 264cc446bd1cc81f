"""The probes of other servers answer as /livez and /readyz do, and need no key."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import pytest

from tests.live_server import OWNER, READER, RunningServer

READY = ["/health", "/ping", "/v2/health/ready"]


@pytest.mark.parametrize("path", [*READY, "/v2/health/live"])
@pytest.mark.calls("HTTP", "GET /ping")
def test_a_probe_needs_no_key_and_other_routes_do(serve: Callable[..., RunningServer], path: str) -> None:
    with serve(api_key=READER, admin_key=OWNER).client() as client:
        assert client.get(path).status_code == 200
        for closed in ("/v2", "/v2/models/foundation", "/v2/models/foundation/ready", "/version"):
            assert client.get(closed).status_code == 401


def test_a_server_that_drains_is_alive_and_not_ready(serve: Callable[..., RunningServer]) -> None:
    running = serve()
    with running.client() as client:
        assert [client.get(path).status_code for path in READY] == [200] * 3
        running.app.state.server.ready = False
        assert [client.get(path).status_code for path in READY] == [503] * 3
        assert client.get("/v2/health/live").json() == {"live": True}
        assert "starting or stopping" in client.get("/v2/health/ready").json()["error"]


@pytest.mark.calls("HTTP", "GET /version")
def test_the_version_is_that_of_the_package(serve: Callable[..., RunningServer]) -> None:
    with serve().client() as client:
        assert client.get("/version").json() == {"version": version("rootstock")}

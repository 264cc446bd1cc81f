"""The deployment of an application on a Ray cluster."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx

from rootstock.service.cluster.application import ClusterPlan, application

_HTTP_SECONDS = 30.0


class DeploymentFailed(Exception):
    """A deployment that Ray refuses, or whose replicas do not start. The message says why."""


def deploy(plan: ClusterPlan, address: str, name: str, prefix: str, host: str, port: int) -> None:
    """Deploy an application, or change one of this name. Return once its replicas are ready.

    Raise DeploymentFailed with the reason if the cluster cannot be reached or the application does not start.
    """
    # Ray sends reports of use to its makers unless this is set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    _connect(ray, address)
    try:
        try:
            serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
        except ray.exceptions.RayError as error:
            raise DeploymentFailed(
                f"Serve does not start to listen on {host}:{port} ({_last_line(error)}); look whether another "
                "program has the port, and give the command again"
            ) from error
        try:
            serve.run(application(plan), name=name, route_prefix=prefix)
        except RuntimeError as error:
            raise DeploymentFailed(f"the application does not start: {_reason(serve, name) or error}") from error
        except ValueError as error:
            raise DeploymentFailed(str(error)) from error
        _check_listener(f"http://{host}:{port}{prefix.rstrip('/')}/livez")
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DeploymentFailed(
            f"no Ray cluster answers at {address} ({_last_line(error)}); start one with "
            "`ray start --head`, or give its --address"
        ) from error


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _reason(serve: Any, name: str) -> str:
    """Return what Serve says of the deployments of an application that do not run."""
    found = serve.status().applications.get(name)
    if found is None:
        return ""
    return "; ".join(
        f"{part}: {state.message.strip().splitlines()[-1]}"
        for part, state in found.deployments.items()
        if state.message.strip()
    )


def _check_listener(url: str) -> None:
    """Raise DeploymentFailed unless the server answers at a URL: the cluster's Serve may listen elsewhere."""
    deadline = time.monotonic() + _HTTP_SECONDS
    while True:
        try:
            if httpx.get(url, timeout=_HTTP_SECONDS).status_code < 500:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise DeploymentFailed(
                f"the replicas run, and nothing answers at {url}: Serve on this cluster was started with another "
                "address; give that one, or end it with `serve shutdown` first"
            )
        time.sleep(0.2)

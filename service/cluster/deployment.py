"""The deployment of an application on a Ray cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import httpx

from rootstock.service.cluster.application import ClusterPlan, application

_HTTP_SECONDS = 30.0


class DeploymentFailed(Exception):
    """A deployment that Ray refuses, or whose replicas do not start. The message says why."""


def deploy(plan: ClusterPlan, address: str, name: str, prefix: str, host: str, port: int) -> None:
    """Deploy an application, or change one of this name. Return once its replicas are ready.

    Raise DeploymentFailed with the reason if the cluster cannot be reached, is too small or listens elsewhere, or
    if the application does not start.
    """
    # Ray sends reports of use to its makers unless this is set.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    _connect(ray, address)
    try:
        try:
            serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
        except ray.exceptions.RayError as error:
            raise DeploymentFailed(
                f"Serve does not start to listen on {host}:{port} ({_last_line(error)}); look whether another "
                "program has the port, and give the command again"
            ) from error
        # Serve that runs already keeps its address, and only warns. It has no public name for that address.
        _check_address(_get_global_client().http_config, host, port)
        needs = plan.update_needs if _runs(serve, name) else plan.needs
        _check_room(needs, ray.cluster_resources())
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


def _check_address(listening: Any, host: str, port: int) -> None:
    """Raise DeploymentFailed if Serve listens elsewhere: only the address that was asked for is checked."""
    if (listening.host, listening.port) != (host, port):
        raise DeploymentFailed(
            f"Serve on this cluster listens on {listening.host}:{listening.port}, and not on {host}:{port}; give "
            "--host and --port of that address, or end Serve first (docs/operations.md, Ray)"
        )


def _check_room(needs: Mapping[str, float], held: Mapping[str, float]) -> None:
    """Raise DeploymentFailed if a cluster has less than the application needs: Serve would wait for ever."""
    for resource, unit in (("CPU", "cores"), ("GPU", "GPUs")):
        need, has = needs[resource], held.get(resource, 0.0)
        # The resources are sums of floats.
        if need > has + 1e-6:
            raise DeploymentFailed(
                f"the replicas and the ingresses need {need:g} {unit}, with room for an update if they run, and "
                f"the cluster has {has:g}; start Ray on more machines (`ray start --address`), or give a lower "
                "--replicas, --cpus, --gpus or --ingresses"
            )


def _runs(serve: Any, name: str) -> bool:
    """Tell whether a deployment of an application has a replica that runs."""
    found = serve.status().applications.get(name)
    return found is not None and any(part.replica_states.get("RUNNING") for part in found.deployments.values())


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _reason(serve: Any, name: str) -> str:
    """Return what Serve says of the deployments of an application that do not run."""
    found = serve.status().applications.get(name)
    if found is None:
        return ""
    return "; ".join(
        f"{part}: {_error_in(state.message)}"
        for part, state in found.deployments.items()
        if state.message.strip()
    )


def _error_in(message: str) -> str:
    """Return the error at the end of a traceback, with the place that its note may state in a further line."""
    lines = [line.strip() for line in message.strip().splitlines()]
    return " ".join(lines[-2:] if lines[-1].startswith("at ") else lines[-1:])


def _check_listener(url: str) -> None:
    """Raise DeploymentFailed unless the server answers at a URL."""
    deadline = time.monotonic() + _HTTP_SECONDS
    while True:
        try:
            if httpx.get(url, timeout=_HTTP_SECONDS).status_code < 500:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise DeploymentFailed(
                f"the replicas run, and nothing answers at {url}; look at Ray's logs, and whether this "
                "machine reaches that address"
            )
        time.sleep(0.2)

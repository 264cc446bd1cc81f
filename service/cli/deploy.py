"""The command `rootstock deploy ray`."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import examples
from rootstock.adapters.installation import lack
from rootstock.service.cli.serve import FOUNDATION, fail, pass_on, prepare

if TYPE_CHECKING:
    from rootstock.service.cluster.application import ClusterPlan
    from rootstock.service.settings import Settings

_PREFIX = "ROOTSTOCK_"

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, suggest_commands=False)


@app.callback(epilog=examples("rootstock deploy ray --replicas 4"))
def group() -> None:
    """Run several replicas of the server on a cluster.

    The environment variables ROOTSTOCK_* hold the settings of all replicas (docs/operations.md).
    """


@app.command(
    epilog=examples(
        "rootstock deploy ray --replicas 4",
        "rootstock deploy ray --replicas 2 --max-replicas 8 --cpus 4",
    )
)
def ray(
    replicas: Annotated[
        int, typer.Option(min=1, max=1000, help="The number of replicas, or the fewest with --max-replicas.")
    ] = 2,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, max=1000, help="The most replicas. Default: as many as --replicas.")
    ] = None,
    target: Annotated[
        float,
        typer.Option(min=0.1, help="With --max-replicas: the requests under way in each replica to aim at."),
    ] = 16.0,
    cpus: Annotated[
        float, typer.Option(min=0.01, help="The cores of each replica, for its place in the cluster.")
    ] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="The GPUs of each replica.")] = 0.0,
    ingresses: Annotated[
        int, typer.Option(min=1, max=1000, help="The number of processes that read and place requests.")
    ] = 1,
    foundation: Annotated[str | None, FOUNDATION] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on. Default: the value of ROOTSTOCK_HOST.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to listen on. Default: the value of ROOTSTOCK_PORT.", show_default=False),
    ] = None,
    address: Annotated[str, typer.Option(help="The Ray cluster's address; auto finds the local one.")] = "auto",
    name: Annotated[str, typer.Option(help="The name of the application in Ray Serve.")] = "rootstock",
    prefix: Annotated[
        str, typer.Option(help="The path under which the server answers. Another foundation needs another one.")
    ] = "/",
    routing: Annotated[
        str, typer.Option(help="How a replica is chosen: adapter, or random for comparison.")
    ] = "adapter",
) -> None:
    """Run replicas on a Ray cluster, behind one port.

    The command returns once all are ready, and they go on. Given again, it replaces them one after another.
    docs/operations.md says how they end. Several replicas need ROOTSTOCK_REGISTRY_URL and ROOTSTOCK_STORE_URL.
    """
    if routing not in ("adapter", "random"):
        fail(f"--routing is {routing!r}; give adapter or random")
    if max_replicas is not None and max_replicas < replicas:
        fail(f"--max-replicas is {max_replicas}, fewer than --replicas {replicas}; give at least as many")
    settings = _checked(max(replicas, max_replicas or 1), host=host, port=port, foundation=foundation)
    from rootstock.service.cluster.application import ClusterPlan

    plan = ClusterPlan(
        replicas=replicas,
        most_replicas=max_replicas,
        target=target,
        cpus=cpus,
        gpus=gpus,
        ingresses=ingresses,
        by_adapter=routing == "adapter",
        grace_seconds=settings.grace_period,
        max_body=settings.max_body_mb * 2**20,
        max_upload=(settings.max_bundle_mb + 1) * 2**20,
        shared=bool(settings.registry_address),
        settings=_variables(settings, cpus),
        served_names=settings.names,
    )
    _deploy(plan, address, name, prefix, settings.host, settings.port)


def _checked(most_replicas: int, **flags: Any) -> Settings:
    """Return the settings, once they are good for so many replicas. Make the exports that all replicas share."""
    from rootstock.adapters.errors import AdapterError, explained
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.service.composition.access_parts import check_openness
    from rootstock.service.runner_choice import runs_on_torch
    from rootstock.service.settings import SettingsError, read_settings
    from rootstock.service.startup import keep_files_private

    try:
        settings = read_settings(**flags)
        if settings.processes > 1:
            fail(
                f"ROOTSTOCK_PROCESSES is {settings.processes}, and a replica on Ray is one process; unset "
                "it, and give more --replicas"
            )
        if most_replicas > 1 and not settings.registry_address:
            fail(
                f"{most_replicas} replicas need one registry and one store, and the registry is a file in "
                f"{settings.home_folder}, which one replica alone can use; set ROOTSTOCK_REGISTRY_URL and "
                "ROOTSTOCK_STORE_URL, or give --replicas 1",
            )
        keep_files_private()
        check_openness(settings)
        pass_on(settings)
        if runs_on_torch(settings):
            if problem := lack("torch", "ROOTSTOCK_RUNNER=torch"):
                fail(problem)
        else:
            for setting in settings.hosted.values():
                prepare(setting, settings)
    except (SettingsError, AdapterError, FoundationError, OSError) as error:
        fail(explained(error))
    return settings


def _variables(settings: Settings, cpus: float) -> dict[str, str]:
    """Return the environment variables of each replica."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    if not settings.threads:
        variables["ROOTSTOCK_THREADS"] = str(max(1, math.floor(cpus)))
    return variables


def _deploy(plan: ClusterPlan, address: str, name: str, prefix: str, host: str, port: int) -> None:
    from rootstock.service.cluster.deployment import DeploymentFailed, deploy

    try:
        deploy(plan, address, name, prefix, host, port)
    except DeploymentFailed as error:
        fail(str(error))
    where = f"http://{host}:{port}{prefix.rstrip('/')}"
    most = "" if plan.most_replicas is None else f" to {plan.most_replicas}"
    typer.echo(f"{plan.replicas}{most} replicas serve on {where} (console at {where}/console)")

"""The command `rootstock serve`."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rootstock.adapters.cli.options import FOUNDATION_HELP, examples
from rootstock.adapters.installation import lack

serve = typer.Typer(add_completion=False, rich_markup_mode=None)

FOUNDATION = typer.Option(help=f"{FOUNDATION_HELP} Default: the value of ROOTSTOCK_FOUNDATION.")


@serve.command(
    epilog=examples(
        "rootstock serve", "rootstock serve --port 8080 --server uvicorn", "rootstock serve --processes 8"
    )
)
def serve_command(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on. Default: the value of ROOTSTOCK_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The port to listen on. Default: the value of ROOTSTOCK_PORT.")
    ] = None,
    foundation: Annotated[str | None, FOUNDATION] = None,
    server: Annotated[
        str | None,
        typer.Option(help="The HTTP server, bentoml or uvicorn. Default: the value of ROOTSTOCK_SERVER."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="The number of processes that serve. Default: the value of ROOTSTOCK_PROCESSES."),
    ] = None,
) -> None:
    """Serve a foundation and its adapters over HTTP until stopped.

    The environment variables ROOTSTOCK_* hold all settings (docs/operations.md); flags take precedence.
    """
    from rootstock.service.lean_imports import lean_imports

    with lean_imports():
        from rootstock.adapters.errors import AdapterError, explained
        from rootstock.adapters.foundation.location import FoundationError
        from rootstock.service.runner_choice import check_processes, runs_on_torch
        from rootstock.service.settings import SettingsError, read_settings
        from rootstock.service.startup import keep_files_private
        from rootstock.service.telemetry.span_exporters import NoSuchExporter, find_exporters

        try:
            settings = read_settings(
                host=host, port=port, foundation=foundation, server=server, processes=processes
            )
            check_processes(settings)
            find_exporters()
            pass_on(settings)
            keep_files_private()
            _take_home(settings)
        except (SettingsError, NoSuchExporter, AdapterError, OSError) as error:
            fail(explained(error))
    # Before the export, which takes its time.
    _check_address(settings.host, settings.port)
    try:
        if not runs_on_torch(settings):
            for setting in settings.hosted.values():
                prepare(setting, settings)
        elif problem := lack("torch", "ROOTSTOCK_RUNNER=torch"):
            fail(problem)
    except (FoundationError, AdapterError, OSError) as error:
        fail(explained(error))
    address = f"http://{settings.host}:{settings.port}"
    sys.stderr.write(f"rootstock: serving on {address} (console at {address}/console, docs at {address}/docs)\n")
    if settings.server == "uvicorn" and settings.processes > 1:
        from rootstock.service.cli.uvicorn_processes import serve_processes

        sys.exit(serve_processes(settings))
    elif settings.server == "uvicorn":
        _serve_uvicorn(settings)
    else:
        _serve_bentoml(settings)


def pass_on(settings: Any) -> None:
    """Put the flags and absolute paths into the environment, for processes that start in another folder."""
    hosted = [_absolute(setting) for setting in settings.hosted.values()]
    variables = {
        "HOME": settings.home_folder,
        "FOUNDATION": hosted[0],
        "FOUNDATIONS": ",".join(hosted) if len(hosted) > 1 else "",
        "HOST": settings.host,
        "PORT": settings.port,
        "SERVER": settings.server,
        "PROCESSES": settings.processes,
    }
    if settings.exports is not None:
        variables["EXPORTS"] = settings.export_folders[0]
    os.environ.update({f"ROOTSTOCK_{name}": str(value) for name, value in variables.items()})


def _absolute(setting: str) -> str:
    from rootstock.adapters.foundation.named import NAMED

    folder = Path(setting).expanduser()
    return str(folder.absolute()) if setting not in NAMED and folder.is_dir() else setting


def _take_home(settings: Any) -> None:
    """Lock the home for this process.

    Raise an error if it, the registry or a shared store cannot be used, or if strangers could use the server.
    """
    from rootstock.adapters.home.home import Home
    from rootstock.service.composition.access_parts import check_openness

    home = Home(settings.home_folder)
    home.keep("rootstock serve")
    check_openness(settings)
    if settings.store_url:
        home.open_store(settings.store_url)


def _check_address(host: str, port: int) -> None:
    """Exit with one clear line if the address cannot be used, before the server's processes start."""
    import socket

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another address with --host or --port")


def prepare(setting: str, settings: Any) -> None:
    """Make what the server needs of a foundation: an export, or torch if the foundation generates text."""
    from rootstock.adapters.foundation.location import FoundationError, generates, locate
    from rootstock.service.exports.cache import find_export

    files = locate(setting, settings.export_folders)
    if not generates(files):
        # Here the user sees the progress of an export that is made now, and its errors.
        # A choice between precisions needs the export of fp32 to fall back to, and never makes the other.
        precision = "int8" if settings.precision == "int8" else "fp32"
        find_export(setting, files, settings.export_folders, precision)
    elif problem := lack("torch", f"generating text with {files.name}"):
        raise FoundationError(problem)


def _serve_uvicorn(settings: Any) -> None:
    import uvicorn

    from rootstock.service.lean_imports import lean_imports

    with lean_imports():
        from rootstock.service.api.connection.protocol import BoundedHeadProtocol
        from rootstock.service.app import asgi_from_environment
        from rootstock.service.startup import EXIT_CODE

        app = asgi_from_environment()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=BoundedHeadProtocol,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_period),
    )
    server = uvicorn.Server(config)
    # uvicorn listens after the app has logged that it is ready, and refuses whoever calls between the two.
    listener = config.bind_socket()
    listener.set_inheritable(False)
    listener.listen(config.backlog)
    # uvicorn raises a SIGINT again once it has stopped.
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(EXIT_CODE)


def _serve_bentoml(settings: Any) -> None:
    """Replace this process by BentoML's command, which starts the workers and passes signals on."""
    # BentoML puts this folder on the import path. It holds `rootstock`, not the packages inside it.
    root = Path(__file__).parents[3]
    arguments = {
        "--working-dir": root,
        "--host": "127.0.0.1" if settings.host == "localhost" else settings.host,
        "--port": settings.port,
        "--timeout-graceful-shutdown": math.ceil(settings.grace_period),
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true"}
    command = [
        sys.executable,
        # The folder in which the command was given is not on the import path: anyone may have put a module there.
        "-P",
        "-m",
        "rootstock.service.startup",
        "serve",
        "rootstock.service.bento:Rootstock",
        *flags,
    ]
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


def fail(message: str, code: int = 2) -> NoReturn:
    """End the process with a message on stderr and an exit code."""
    sys.stderr.write(f"rootstock: {message}\n")
    raise SystemExit(code)

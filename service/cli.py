"""`rootstock serve` and `rootstock foundation`."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

serve = typer.Typer(add_completion=False)
foundation = typer.Typer(add_completion=False, no_args_is_help=True, help="Show or export the foundation model.")

_FOUNDATION = typer.Option(help="`default`, a local folder, or org/name@<40 hex revision>.")


@serve.command(epilog="Example: rootstock serve --port 8080 --server uvicorn")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    foundation: Annotated[str | None, _FOUNDATION] = None,
    server: Annotated[str | None, typer.Option(help="bentoml or uvicorn.")] = None,
) -> None:
    """Serve a foundation and its adapters over HTTP until stopped. Settings: ROOTSTOCK_* (docs/operations.md)."""
    from adapters.errors import AdapterError
    from adapters.foundation import FoundationError
    from service.settings import SettingsError, read_settings

    try:
        settings = read_settings(host=host, port=port, foundation=foundation, server=server)
        _pass_on(settings)
        _open_home(settings)
        if settings.runner != "torch":
            _exported(settings)
    except (SettingsError, FoundationError, AdapterError, OSError) as error:
        _fail(str(error))
    _check_address(settings.host, settings.port)
    sys.stderr.write(f"rootstock: serving on http://{settings.host}:{settings.port} (docs at /docs)\n")
    if settings.server == "uvicorn":
        _serve_uvicorn(settings)
    else:
        _serve_bentoml(settings)


@foundation.command("show", epilog="Example: rootstock foundation show --foundation ./my-model --json")
def show(
    foundation: Annotated[str | None, _FOUNDATION] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Print the foundation's name, fingerprint, sites and task classes."""
    spec = _describe(foundation)
    if as_json:
        sys.stdout.write(json.dumps(spec.to_json(), indent=2) + "\n")
        return
    ranked = "\n".join(f"  {c.task:<22}{c.name}" for c in spec.classes.values())
    sys.stdout.write(
        f"name         {spec.name}{'@' + spec.revision if spec.revision else ''}\n"
        f"fingerprint  {spec.fingerprint}\n"
        f"model        {spec.model_type}, {spec.layers} layers, width {spec.hidden_size}, "
        f"{spec.parameters / 1e6:.1f} M parameters\n"
        f"tokens       at most {spec.max_tokens}; {spec.embedding.max_tokens} for its own embeddings "
        f"({spec.embedding.pooling} pooling{', normalised' if spec.embedding.normalize else ''})\n"
        f"sites        {len(spec.sites)} linear layers of the trunk\n"
        f"tasks\n{ranked}\n"
    )


@foundation.command("export", epilog="Example: rootstock foundation export")
def export(foundation: Annotated[str | None, _FOUNDATION] = None) -> None:
    """Write the foundation's ONNX form to the cache that `rootstock serve` reads."""
    from adapters.foundation import FoundationError
    from service.settings import SettingsError, read_settings

    try:
        folder = _exported(read_settings(foundation=foundation))
    except (SettingsError, FoundationError) as error:
        _fail(str(error))
    sys.stdout.write(f"{folder}\n")


def _pass_on(settings: Any) -> None:
    """What flags set and what is relative to this folder, for the processes that start elsewhere."""
    folder = Path(settings.foundation).expanduser()
    given = {
        "HOME": settings.home_folder,
        "FOUNDATION": folder.absolute() if folder.is_dir() else settings.foundation,
        "HOST": settings.host,
        "PORT": settings.port,
        "SERVER": settings.server,
    }
    os.environ.update({f"ROOTSTOCK_{name}": str(value) for name, value in given.items()})


def _open_home(settings: Any) -> None:
    """A home that cannot be written or a registry that cannot be read is said here, once."""
    from adapters.registry import Registry

    settings.home_folder.mkdir(parents=True, exist_ok=True)
    Registry(f"sqlite:///{settings.home_folder / 'registry.db'}").close()


def _check_address(host: str, port: int) -> None:
    """One clear line for a port that is taken, before the server's processes start."""
    import socket

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --host or --port")


def _exported(settings: Any) -> Path:
    """The foundation's export, made here if need be: progress is seen, and a fault is one clear line."""
    from adapters.foundation import locate
    from service.exports import ensure_export

    return ensure_export(settings.foundation, locate(settings.foundation), settings.home_folder)


def _describe(foundation: str | None) -> Any:
    from adapters.architecture import describe
    from adapters.foundation import FoundationError, locate
    from service.settings import SettingsError, read_settings

    try:
        return describe(locate(read_settings(foundation=foundation).foundation))
    except (SettingsError, FoundationError) as error:
        _fail(str(error))


def _serve_uvicorn(settings: Any) -> None:
    import uvicorn

    uvicorn.run(
        "service.app:app_from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_period),
    )


def _serve_bentoml(settings: Any) -> None:
    """BentoML's own command takes this process over: it starts the one worker and passes signals on."""
    root = Path(__file__).parents[1]
    arguments = {
        "--working-dir": root,
        "--host": "127.0.0.1" if settings.host == "localhost" else settings.host,
        "--port": settings.port,
        "--timeout-graceful-shutdown": math.ceil(settings.grace_period),
    }
    flags = [str(part) for pair in arguments.items() for part in pair]
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "bentoml", "serve", "service.bento:Rootstock", *flags]
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter


def _fail(message: str) -> Any:
    sys.stderr.write(f"rootstock: {message}\n")
    raise SystemExit(2)

"""The console program `rootstock`, which imports a group of commands only when it runs one of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.metadata import version
from typing import NamedTuple

from rootstock.adapters.installation import lack


class CommandGroup(NamedTuple):
    """A group of commands: its typer app as MODULE:NAME, its one-line help, and the extra that it needs."""

    app: str
    text: str
    extra: str | None = None


# The apps are named as text, so that the console need not import the packages that hold them.
_GROUPS = {
    "serve": CommandGroup(
        "rootstock.service.cli.serve:serve", "Serve a foundation and its adapters over HTTP.", "serve"
    ),
    "deploy": CommandGroup(
        "rootstock.service.cli.deploy:app", "Run several replicas of the server on a cluster.", "ray"
    ),
    "top": CommandGroup("rootstock.service.cli.top:top", "Watch a server's traffic, live in a terminal."),
    "foundation": CommandGroup(
        "rootstock.service.cli.foundation:foundation",
        "Show, export or check the foundation model.",
        "serve",
    ),
    "adapters": CommandGroup(
        "rootstock.adapters.cli.adapter_commands:app",
        "Publish, list, download and remove adapters, and move their aliases.",
    ),
    "keys": CommandGroup(
        "rootstock.service.cli.keys:app", "Create, list, rotate and revoke the keys of a server, and set quotas."
    ),
    "train": CommandGroup(
        "rootstock.training.cli.app:app", "Train an adapter from labelled rows, and study it.", "train"
    ),
    "bench": CommandGroup("rootstock.loadtest.cli:app", "Measure the engine and the server against their peers."),
}


def main() -> None:
    """Run `rootstock GROUP …`; exit with code 2 for a group that does not exist or is not installed."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h"):
        sys.stdout.write(_usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"rootstock {version('rootstock')}\n")
        return
    name, *rest = arguments
    if name not in _GROUPS:
        sys.stderr.write(f"rootstock: unknown command {name!r}; choose one of these\n\n{_usage()}")
        sys.exit(2)
    problem = _absence(name) or (None if "--help" in rest else _lack(name))
    if problem is not None:
        sys.stderr.write(f"rootstock: {problem}\n")
        sys.exit(2)
    module, _, attribute = _GROUPS[name].app.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    app(args=rest, prog_name=f"rootstock {name}")


def _absence(name: str) -> str | None:
    """Return why a group's package is missing; None if it is there.

    A wheel leaves out the benchmarks, and an image leaves out training.
    """
    package = ".".join(_GROUPS[name].app.split(".")[:2])
    if importlib.util.find_spec(package) is not None:
        return None
    return (
        f"`rootstock {name}` needs {package}, which this installation leaves out; run it from a checkout of the "
        "repository"
    )


def _lack(name: str) -> str | None:
    """Return the packages that a group lacks; None if its extra is installed or it needs none."""
    extra = _GROUPS[name].extra
    return None if extra is None else lack(extra, f"`rootstock {name}`")


def _usage() -> str:
    lines = [f"  {name:<12}{group.text}" for name, group in _GROUPS.items()]
    return "\n".join(
        [
            "Usage: rootstock COMMAND [--help]",
            "",
            "One frozen foundation model, many adapters, uploaded and served per request.",
            "",
            *lines,
            "",
            "Start with: rootstock serve",
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""The one console program. Each group of commands is imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version

# Name → where its typer app is. By name, so that no package imports another for the sake of the console.
_GROUPS = {
    "serve": ("rootstock.service.cli:serve", "Serve a foundation and its adapters over HTTP."),
    "top": ("rootstock.service.cli:top", "Watch what a server does, live in a terminal."),
    "foundation": ("rootstock.service.cli:foundation", "Show or export the foundation model."),
    "adapters": (
        "rootstock.adapters.cli.adapter_commands:app",
        "Publish, list, move, fetch and remove adapters on a server.",
    ),
    "train": ("rootstock.training.cli.app:app", "Train an adapter from a labelled file."),
    "bench": ("rootstock.loadtest.cli:app", "Measure the engine and the server against their peers."),
}


def main() -> None:
    """Run `rootstock GROUP …`: exit code 2 for a group that does not exist."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h"):
        sys.stdout.write(_usage())
        return
    if arguments[0] == "--version":
        sys.stdout.write(f"rootstock {version('rootstock')}\n")
        return
    name, *rest = arguments
    if name not in _GROUPS:
        sys.stderr.write(f"rootstock: no command {name!r}\n\n{_usage()}")
        sys.exit(2)
    module, _, attribute = _GROUPS[name][0].partition(":")
    app = getattr(importlib.import_module(module), attribute)
    app(args=rest, prog_name=f"rootstock {name}")


def _usage() -> str:
    lines = [f"  {name:<12}{text}" for name, (_, text) in _GROUPS.items()]
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

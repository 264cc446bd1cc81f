"""The arguments and options that several `rootstock adapters` commands take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rootstock.adapters.cli.output import fail

URL = "http://127.0.0.1:3000"

Url = Annotated[str, typer.Option("--url", help="The server's address.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Bearer token; else ROOTSTOCK_ADMIN_KEY.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The adapter's name.")]
Source = Annotated[
    Path, typer.Argument(metavar="PATH", exists=True, help="A bundle's zip or folder, or a plain PEFT folder.")
]
Task = Annotated[str | None, typer.Option(help="Plain PEFT folder: task; else as adapter_config.json says.")]
Labels = Annotated[str | None, typer.Option(help="Plain PEFT folder: labels in id order, as a,b,c or JSON.")]
Problem = Annotated[str | None, typer.Option(help="Plain PEFT folder: problem type.")]
Length = Annotated[int | None, typer.Option(min=1, help="Plain PEFT folder: most tokens that an input keeps.")]
FOUNDATION_HELP = "`default`, a folder, or org/name@COMMIT."


def listed(labels: str | None) -> tuple[str, ...] | None:
    """The labels that an option gives, as `a,b,c` or as a JSON array; exit code 2 for anything else."""
    if labels is None:
        return None
    if not labels.lstrip().startswith("["):
        return tuple(label.strip() for label in labels.split(","))
    try:
        found = json.loads(labels)
    except ValueError as error:
        fail(f"--labels is not JSON: {error}", 2)
    if not all(isinstance(label, str) for label in found):
        fail("--labels is not a JSON array of strings", 2)
    return tuple(found)

"""The arguments and options that several `rootstock adapters` commands take."""

from __future__ import annotations

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
Labels = Annotated[
    str | None, typer.Option(help="Plain PEFT folder: labels in id order, as a,b,c or JSON (also id2label).")
]
Problem = Annotated[str | None, typer.Option(help="Plain PEFT folder: problem type.")]
Length = Annotated[int | None, typer.Option(min=1, help="Plain PEFT folder: most tokens that an input keeps.")]
Base = Annotated[
    str | None,
    typer.Option("--foundation", help="Plain PEFT folder: trained on; else as adapter_config.json says."),
]
FOUNDATION_HELP = "`default`, a folder, or org/name@COMMIT."


def listed(labels: str | None) -> tuple[str, ...] | None:
    """Return the labels that an option gives: `a,b,c`, a JSON array, or a JSON object from id to label.

    Exit code 2 for anything else.
    """
    if labels is None:
        return None
    from rootstock.adapters.bundle.labels import given_labels, read_labels
    from rootstock.adapters.spec import Rejected

    try:
        if labels.lstrip().startswith(("[", "{")):
            return read_labels(labels)
        return given_labels([label.strip() for label in labels.split(",")])
    except Rejected as error:
        fail(f"--labels: {error.message}", 2)

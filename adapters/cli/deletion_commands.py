"""The commands that list deleted versions on a server, and bring them back."""

from __future__ import annotations

from typing import Annotated

import typer

from rootstock.adapters.cli.options import URL, Json, Key, Name, Url
from rootstock.adapters.cli.output import cell, connected, table, tell


def deleted(name: Name, url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """List the deleted versions of an adapter that can come back."""
    with connected(url, key) as client:
        versions = client.deleted(name)
    columns = ("version", "task", "digest", "bytes", "deleted", "until", "aliases")
    rows = (
        {
            "version": one.version,
            "task": one.task,
            "digest": one.digest[:19],
            "bytes": one.size,
            "deleted": one.deleted_at[:19],
            "until": one.purged_at[:19],
            "aliases": ", ".join(one.aliases) or None,
        }
        for one in versions
    )
    documents = [one.document for one in versions]
    none = f"no deleted version of {name} can come back"
    tell({"name": name, "versions": documents}, as_json, table(columns, rows) if versions else none)


def undelete(
    name: Name,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]",
            min=1,
            help="The number of the deleted version. Default: all that were deleted with their adapter.",
        ),
    ] = None,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Bring a deleted version or adapter back.

    Aliases come back too, unless they point at another version now.
    """
    with connected(url, key) as client:
        back = client.undelete(name, version)
    versions = ", ".join(f"{back.name}@{number}" for number in back.versions)
    are = "is" if len(back.versions) == 1 else "are"
    tell(back.document, as_json, f"{versions} {are} back; aliases: {cell(back.aliases)}")

"""The commands that move the aliases of an adapter, and share it."""

from __future__ import annotations

from typing import Annotated

import typer

from rootstock.adapters.cli.options import (
    URL,
    Json,
    Key,
    Name,
    Url,
)
from rootstock.adapters.cli.output import (
    connected,
    tell,
    tell_pointer,
)
from rootstock.adapters.reference import LIVE


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The number of the version.")],
    alias: Annotated[str, typer.Option(help="The alias to set. A name alone means its alias `live`.")] = LIVE,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a version live, or point another alias at it.

    Requests that the server admits afterwards use that version.
    """

    set_alias(name, alias, version, url, key, as_json)


def set_alias(
    name: Name,
    alias: Annotated[
        str, typer.Argument(metavar="ALIAS", help="The alias to set. A name alone means its alias `live`.")
    ],
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="The number of the version to point at.")
    ],
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version, as `promote` does.

    Requests that the server admits afterwards use that version.
    """
    with connected(url, key) as client:
        tell_pointer(client.promote(name, version, alias), as_json)


def rollback(name: Name, url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """Move `live` back to the version that it pointed at before."""
    with connected(url, key) as client:
        tell_pointer(client.rollback(name), as_json)


def share(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Take it back: only its own tenant uses it.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let all tenants of the server use an adapter."""
    with connected(url, key) as client:
        sharing = client.share(name, not off)
    who = "all tenants" if sharing.shared else "its own tenant alone"
    tell(sharing.document, as_json, f"{sharing.name} is for {who}")

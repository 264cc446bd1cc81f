"""The command that publishes the adapters that a file declares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import URL, Json, Key, Url
from rootstock.adapters.cli.output import connected, fail, tell
from rootstock.adapters.client.errors import ClientError, NotFound, one_line
from rootstock.adapters.errors import AdapterError, explained
from rootstock.adapters.reference import LIVE

if TYPE_CHECKING:
    from rootstock.adapters.cli.declaration.declared_adapter import DeclaredAdapter
    from rootstock.adapters.client.client import Client


def apply(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A TOML file with a table for each adapter: path or source, and aliases.",
        ),
    ],
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish the adapters of a file, and set their aliases.

    A version that the server has stays as it is, so a second run changes nothing. Adapters that the file does not
    name stay too. An adapter that fails is named on stderr, and the others go on; the exit code is then 1.
    """
    from rootstock.adapters.cli.declaration.declared_adapter import InvalidDeclaration, read_declarations

    try:
        declared = read_declarations(file)
    except (InvalidDeclaration, OSError) as error:
        fail(str(error) if isinstance(error, InvalidDeclaration) else explained(error), 2)
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    with connected(url, key) as client:
        for adapter in declared:
            try:
                done.append(_applied(client, adapter))
            except (ClientError, AdapterError, OSError) as error:
                failed.append(adapter.name)
                reason = explained(error) if isinstance(error, OSError) else str(error)
                typer.echo(f"rootstock adapters: {adapter.name}: {one_line(reason)}", err=True)
    tell({"adapters": done, "failed": failed}, as_json, *map(_line, done))
    if failed:
        raise typer.Exit(1)


def _applied(client: Client, adapter: DeclaredAdapter) -> dict[str, Any]:
    """Publish one adapter and set its aliases; return what that changed."""
    before = _aliases(client, adapter.name)
    activate = LIVE in adapter.aliases
    if adapter.source is not None:
        published = client.publish_from(adapter.source, adapter.name, activate=activate, **adapter.plain)
    else:
        published = client.push(str(adapter.path), adapter.name, activate=activate, **adapter.plain)
    moved = [alias for alias in adapter.aliases if before.get(alias) != published.version]
    for alias in moved:
        if alias != LIVE:
            client.promote(adapter.name, published.version, alias)
    if published.awaits_approval:
        moved = [alias for alias in moved if alias != LIVE]
    return {
        "name": published.name,
        "version": published.version,
        "digest": published.digest,
        "created": published.created,
        "moved": moved,
        "awaits_approval": published.awaits_approval,
    }


def _aliases(client: Client, name: str) -> dict[str, int]:
    """Return the aliases of the caller's adapter. One that another tenant shares is named `tenant/name`."""
    try:
        shown = client.show(name)
    except NotFound:
        return {}
    return {} if "/" in shown.name else dict(shown.aliases)


def _line(done: dict[str, Any]) -> str:
    changes = ["published"] if done["created"] else []
    changes += [f"{_listed(done['moved'])} moved to it"] if done["moved"] else []
    changes += ["live awaits an approval"] if done["awaits_approval"] else []
    return f"{done['name']}@{done['version']}: {', '.join(changes) or 'unchanged'}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)

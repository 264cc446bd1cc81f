"""The `rootstock adapters` commands. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from adapters.errors import AdapterError
from adapters.reference import LIVE, Reference
from adapters.transport_errors import ClientError, Misused, Refused, Unreachable, one_line

if TYPE_CHECKING:
    from adapters.client import Client

# The plain style: an error is a line that a log or a script can take, not a box.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_URL = "http://127.0.0.1:3000"
_HINTS = {
    401: "; give a key: --key, or ROOTSTOCK_ADMIN_KEY",
    403: "; give the server's admin key: --key, or ROOTSTOCK_ADMIN_KEY",
}

Url = Annotated[str, typer.Option("--url", help="The server's address.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Bearer token; else ROOTSTOCK_ADMIN_KEY.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="The adapter's name.")]
Source = Annotated[
    Path, typer.Argument(exists=True, readable=True, help="A bundle's zip or folder, or a plain PEFT folder.")
]
Task = Annotated[str | None, typer.Option(help="Task of a plain PEFT folder; else from its adapter_config.json.")]
Labels = Annotated[str | None, typer.Option(help="Labels of a plain PEFT folder, in id order: a,b,c or JSON.")]
Problem = Annotated[str | None, typer.Option(help="Problem type of a plain PEFT folder.")]
Length = Annotated[int | None, typer.Option(min=1, help="Most tokens an input of a plain PEFT folder keeps.")]


@app.callback()
def server(
    ctx: typer.Context,
    url: Url = _URL,
    key: Annotated[str | None, typer.Option("--key", help="Bearer token.", envvar="ROOTSTOCK_ADMIN_KEY")] = None,
    as_json: Json = False,
) -> None:
    """Publish, list, move, fetch and remove adapters on a server.

    --url, --key and --json may stand before or after the command. Exit code 1: the server refused or cannot be
    reached; 2: wrong usage.

    \b
    Examples:
      rootstock adapters push runs/support-intents.zip
      rootstock adapters --url https://models.example.com list --json
    """
    ctx.default_map = {str(ctx.invoked_subcommand): {"url": url, "key": key, "as_json": as_json}}


@app.command()
def push(
    path: Source,
    name: Annotated[str | None, typer.Option(help="Name to publish under; else PATH's own, less .zip.")] = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    activate: Annotated[bool, typer.Option("--activate/--no-activate", help="Move `live` to it.")] = True,
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish an adapter as the next version of its name; the server verifies it first.

    \b
    Examples:
      rootstock adapters push support-intents.zip
      rootstock adapters push ./peft-output --name sentiment --labels negative,positive
      rootstock adapters push new.zip --name sentiment --no-activate
    """
    names = _labels(labels)
    data = _packed(path) if path.is_dir() else path
    with _server(url, key) as client, _upload_shown() as shown:
        answer = client.publish(
            data,
            name or (path.resolve().name if path.is_dir() else path.stem),
            task=task,
            labels=names,
            problem_type=problem_type,
            max_length=max_length,
            activate=activate,
            progress=shown,
        )
    if as_json:
        return _print_json(answer)
    found = answer.get("verification") or {}
    _print_lines(
        f"{answer.get('name')}@{answer.get('version')} is {answer.get('status')}{' and live' if activate else ''}",
        f"  task    {answer.get('task')}",
        f"  digest  {answer.get('digest')}",
        f"  golden  {found.get('golden')}: {found.get('inputs')} inputs on {found.get('runner')} "
        f"({found.get('precision')}), largest difference {found.get('max_difference')}",
        *(f"  warning: {warning}" for warning in found.get("warnings") or ()),
    )


@app.command("list")
def list_all(url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """List every adapter on the server.

    \b
    Examples:
      rootstock adapters list
      rootstock adapters list --json
    """
    with _server(url, key) as client:
        adapters = list(client.list())
    if as_json:
        return _print_json({"adapters": adapters})
    if not adapters:
        return _print_lines("no adapters yet; publish one: rootstock adapters push PATH")
    rows = (
        (a.get("name"), a.get("live"), len(a.get("versions") or ()), a.get("task"), _aliases(a), a.get("residency"))
        for a in adapters
    )
    _print_table(("name", "live", "versions", "task", "aliases", "residency"), rows)


@app.command()
def show(name: Name, url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """Show an adapter: its aliases and every version.

    \b
    Example:
      rootstock adapters show support-intents
    """
    with _server(url, key) as client:
        found = client.show(name)
    if as_json:
        return _print_json(found)
    live = "no live version" if found.get("live") is None else f"live is version {found['live']}"
    _print_lines(f"{found.get('name')}: {found.get('task')}, {live}; aliases: {_aliases(found) or 'none'}")
    rows = (
        (v["version"], v["status"], v["task"], v["digest"][:19], f"{v['size'] / 1e6:.2f} MB",
         str(v["created_at"])[:19], v["residency"], (v["verification"] or {}).get("golden"))
        for v in found.get("versions") or ()
    )  # fmt: skip
    _print_table(("version", "status", "task", "digest", "size", "created", "residency", "golden"), rows)


@app.command()
def pull(
    ref: Annotated[str, typer.Argument(help="NAME, NAME@3, NAME@ALIAS or NAME@sha256:DIGITS.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; else NAME-VERSION.zip.")] = None,
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Fetch a version's bundle as a zip.

    \b
    Examples:
      rootstock adapters pull support-intents
      rootstock adapters pull support-intents@3 -o backup.zip
    """
    with _server(url, key) as client:
        reference = Reference.parse(ref)
        version = reference.version or _version_of(reference, client.show(reference.name))
        data = client.pull(reference.name, version)
        target = output or Path(f"{reference.name}-{version}.zip")
        target.write_bytes(data)
    if as_json:
        told = {"name": reference.name, "version": version, "file": str(target), "bytes": len(data)}
        return _print_json(told)
    _print_lines(f"{reference.name}@{version} is in {target} ({len(data)} bytes)")


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias; `live` is what a bare name means.")],
    version: Annotated[int, typer.Argument(min=1, help="The version that it is to point at.")],
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version; requests admitted from then on follow it.

    \b
    Examples:
      rootstock adapters alias support-intents prod 3
      rootstock adapters alias support-intents live 2
    """
    with _server(url, key) as client:
        _print_pointer(client.set_alias(name, alias, version), as_json)


@app.command()
def rollback(name: Name, url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """Move `live` back to the version that it pointed at before.

    \b
    Example:
      rootstock adapters rollback support-intents
    """
    with _server(url, key) as client:
        _print_pointer(client.rollback(name), as_json)


@app.command()
def remove(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="This version only; else all of them.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also a version that an alias points at.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Remove a version, or an adapter with all its versions.

    \b
    Examples:
      rootstock adapters remove support-intents --version 2
      rootstock adapters remove support-intents --yes
    """
    what = f"{name} with all its versions" if version is None else f"{name}@{version}"
    if not yes and not sys.stdin.isatty():
        _fail(f"removing {what} has to be confirmed; add --yes", 2)
    if not yes and not typer.confirm(f"Remove {what} from {url}?", err=True):
        _fail("nothing was removed")
    with _server(url, key) as client:
        client.remove(name, version, force)
    if as_json:
        return _print_json({"name": name, "version": version, "removed": True})
    _print_lines(f"{what} is removed")

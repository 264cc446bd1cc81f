"""The `rootstock adapters` commands. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from adapters.errors import AdapterError, InvalidName, InvalidReference
from adapters.output import cell, table, tell, tell_pointer, upload_shown
from adapters.transport_errors import ClientError, Misused, Refused, one_line

if TYPE_CHECKING:
    from adapters.client import Client

# The plain style: an error is a line that a log or a script can take, not a box.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_URL = "http://127.0.0.1:3000"

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


@app.callback()
def server(
    ctx: typer.Context,
    url: Url = _URL,
    key: Annotated[str | None, typer.Option(envvar="ROOTSTOCK_ADMIN_KEY", help="Bearer token.")] = None,
    as_json: Json = False,
) -> None:
    """Publish, list, move, fetch and remove adapters on a server.

    --url, --key and --json may also follow the command. Exit code 1: the server refused or cannot be reached;
    2: wrong usage.

    \b
    Examples:
      rootstock adapters push runs/support-intents.zip
      rootstock adapters --url https://models.example.com list
    """
    ctx.default_map = {str(ctx.invoked_subcommand): {"url": url, "key": key, "as_json": as_json}}


@app.command()
def push(
    path: Source,
    name: Annotated[str | None, typer.Option(help="Name to publish under; else PATH's, less .zip.")] = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    activate: Annotated[bool, typer.Option(help="Whether `live` moves to it.")] = True,
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish an adapter as the next version of its name.

    The server verifies it first; nothing changes where a check fails.

    \b
    Examples:
      rootstock adapters push support-intents.zip
      rootstock adapters push ./peft-output --name sentiment --labels negative,positive
      rootstock adapters push new.zip --name sentiment --no-activate
    """
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain["labels"] = _listed(labels)
    named = name or (path.resolve().name if path.is_dir() else path.stem)
    with _connected(url, key) as client, upload_shown() as shown:
        answer = client.publish(path, named, activate=activate, progress=shown, **plain)
    found = answer.get("verification") or {}
    where = f"{answer.get('name')}@{answer.get('version')}"
    tell(
        answer,
        as_json,
        f"{where} is {answer.get('status')}{' and live' if activate else ''}: {answer.get('task')}",
        f"digest {answer.get('digest')}",
        f"golden {found.get('golden')}: {found.get('inputs')} inputs on {found.get('runner')} "
        f"{found.get('precision')}, largest difference {found.get('max_difference')}",
        *(f"warning: {warning}" for warning in found.get("warnings") or ()),
    )


@app.command("list")
def list_all(url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """List every adapter on the server.

    Example: rootstock adapters list --json
    """
    with _connected(url, key) as client:
        found = list(client.list())
    columns = ("name", "live", "versions", "task", "aliases", "residency")
    rows = ({**a, "versions": len(a.get("versions") or ())} for a in found)
    none_yet = "no adapters yet; publish one: rootstock adapters push PATH"
    tell({"adapters": found}, as_json, table(columns, rows) if found else none_yet)


@app.command()
def show(name: Name, url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """Show an adapter: its aliases and every version.

    Example: rootstock adapters show support-intents
    """
    with _connected(url, key) as client:
        found = client.show(name)
    columns = ("version", "status", "task", "digest", "bytes", "created", "residency", "golden")
    rows = (
        {
            **v,
            "digest": str(v.get("digest"))[:19],
            "bytes": v.get("size"),
            "created": str(v.get("created_at"))[:19],
            "golden": (v.get("verification") or {}).get("golden"),
        }
        for v in found.get("versions") or ()
    )
    head = f"{found.get('name')}: {found.get('task')}; aliases: {cell(found.get('aliases'))}"
    tell(found, as_json, head, table(columns, rows))


@app.command()
def pull(
    ref: Annotated[str, typer.Argument(metavar="REF", help="NAME, NAME@3, NAME@ALIAS or NAME@sha256:DIGITS.")],
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
    with _connected(url, key) as client:
        name, version = client.resolve(ref)
        data = client.pull(name, version)
        target = output or Path(f"{name}-{version}.zip")
        target.write_bytes(data)
    told = {"name": name, "version": version, "file": str(target), "bytes": len(data)}
    tell(told, as_json, f"{name}@{version} is in {target}: {len(data)} bytes")


@app.command("alias")
def set_alias(
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias; `live` is what a bare name means.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version that it is to point at.")],
    url: Url = _URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Point an alias at a version.

    Requests admitted from then on follow it.

    Example: rootstock adapters alias support-intents prod 3
    """
    with _connected(url, key) as client:
        tell_pointer(client.set_alias(name, alias, version), as_json)


@app.command()
def rollback(name: Name, url: Url = _URL, key: Key = None, as_json: Json = False) -> None:
    """Move `live` back to the version that it pointed at before.

    Example: rootstock adapters rollback support-intents
    """
    with _connected(url, key) as client:
        tell_pointer(client.rollback(name), as_json)


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
    with _connected(url, key) as client:
        client.remove(name, version, force)
    tell({"name": name, "version": version, "removed": True}, as_json, f"{what} is removed")


@app.command()
def verify(
    path: Source,
    foundation: Annotated[str, typer.Option(help="`default`, a folder, or org/name@COMMIT.")] = "default",
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    as_json: Json = False,
) -> None:
    """Check an adapter against a foundation offline.

    Everything that needs no model run is checked; the golden replay happens on the server.

    Example: rootstock adapters verify ./peft-output --labels negative,positive
    """
    from adapters.foundation import FoundationError
    from adapters.offline import open_offline
    from adapters.spec import Rejected

    try:
        with _failures():
            plain = (task, _listed(labels), problem_type, max_length)
            spec, bundle, adapter = open_offline(path, foundation, plain)
    except FoundationError as error:
        _fail(str(error), 2)
    except Rejected as error:
        _fail(f"{path} would be refused: {error}")
    checked = ["size", "members", "schema", "tensor names and shapes", "finite values", "rank", "labels"]
    unchecked = ["golden replay (the server does it on upload)", "the server's own limits"]
    stated = bundle.manifest.foundation["fingerprint"] is not None
    (checked if stated else unchecked).append("foundation fingerprint")
    told: dict[str, Any] = {"digest": adapter.digest, "task": adapter.task, "labels": adapter.labels}
    told |= {"foundation": spec.fingerprint, "rank": adapter.weights.max_rank}
    told |= {"checked": checked, "not_checked": unchecked, "warnings": bundle.warnings}
    tell(
        told,
        as_json,
        f"{path} passes on {spec.name}: {adapter.task}, rank {told['rank']}, labels {', '.join(adapter.labels)}",
        f"digest {adapter.digest}",
        f"checked: {', '.join(checked)}",
        f"not checked: {', '.join(unchecked)}",
        *(f"warning: {warning}" for warning in bundle.warnings),
    )


@contextmanager
def _connected(url: str, key: str | None) -> Iterator[Client]:
    from adapters.client import Client

    with _failures(), Client(url, key or None) as client:
        yield client


@contextmanager
def _failures() -> Iterator[None]:
    """One line on stderr instead of a traceback: exit code 2 for wrong usage, 1 for the rest."""
    try:
        yield
    except (Misused, InvalidName, InvalidReference) as error:
        _fail(str(error), 2)
    except ClientError as error:
        status = f" ({error.status} {error.code})" if isinstance(error, Refused) and error.code else ""
        _fail("; ".join(filter(None, (f"{error}{status}", error.advice))))
    except (AdapterError, OSError) as error:
        _fail(str(error))


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"rootstock adapters: {one_line(message)}", err=True)
    raise typer.Exit(code)


def _listed(labels: str | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if not labels.lstrip().startswith("["):
        return tuple(label.strip() for label in labels.split(","))
    try:
        listed = json.loads(labels)
    except ValueError as error:
        _fail(f"--labels is not JSON: {error}", 2)
    if not all(isinstance(label, str) for label in listed):
        _fail("--labels is not a JSON array of strings", 2)
    return tuple(listed)

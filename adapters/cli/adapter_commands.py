"""The `rootstock adapters` commands. Each command imports its heavy packages itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rootstock.adapters.cli.alias_commands import promote, rollback, set_alias, share
from rootstock.adapters.cli.convert_command import convert
from rootstock.adapters.cli.declaration.apply_command import apply
from rootstock.adapters.cli.deletion_commands import deleted, undelete
from rootstock.adapters.cli.history_commands import diff, history
from rootstock.adapters.cli.home_commands import backup, fsck, restore
from rootstock.adapters.cli.offline_commands import import_folder, verify
from rootstock.adapters.cli.options import (
    URL,
    Json,
    Key,
    Name,
    ServerUrl,
    Url,
    examples,
)
from rootstock.adapters.cli.output import (
    cell,
    connected,
    fail,
    failures,
    table,
    tell,
)
from rootstock.adapters.cli.publication_commands import publish_from, push
from rootstock.adapters.cli.rollout_commands import rollout_lines, rule, shadow, split
from rootstock.adapters.cli.signing_commands import keygen, sign
from rootstock.adapters.reference import check_name, shown

# Plain style: an error is a line that a log or a script can read, not a box.
# Without suggestions: to someone who looks for `promote`, they would offer `remove`.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, suggest_commands=False)


@app.callback(
    epilog=examples(
        "rootstock adapters push runs/support-intents.zip",
        "rootstock adapters --url https://models.example.com list",
    )
)
def server(
    ctx: typer.Context,
    url: ServerUrl = URL,
    key: Annotated[
        str | None,
        typer.Option(envvar="ROOTSTOCK_ADMIN_KEY", help="The server's admin key, sent as a bearer token."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish, list, download and remove adapters on a server, and move their aliases.

    The commands import, verify, convert, keygen, sign, fsck, backup and restore work without a server. The
    options --url, --key and --json may also follow the command.

    Exit codes: 1 if the server refused the request, cannot be reached, or a check failed; 2 for wrong usage.
    """
    ctx.default_map = {str(ctx.invoked_subcommand): {"url": url, "key": key, "as_json": as_json}}


app.command(
    epilog=examples(
        "rootstock adapters push support-intents.zip",
        "rootstock adapters push ./peft-output --name sentiment --labels negative,positive",
        "rootstock adapters push new.zip --name sentiment --no-activate",
        "rootstock adapters push ./setfit-model --name intents --trust-pickle",
        "rootstock adapters push org/name@main --name sentiment",
        "rootstock adapters push support-intents.zip --sign-key ~/keys/release.pem",
    )
)(push)


app.command(
    "publish-from",
    epilog=examples(
        "rootstock adapters publish-from hf://org/name@0123456789abcdef0123456789abcdef01234567 --name sentiment",
        "rootstock adapters publish-from s3://models/intents.zip#sha256=… --name intents",
    ),
)(publish_from)


app.command(
    epilog=examples(
        "rootstock adapters apply adapters.toml",
    ),
)(apply)


@app.command(
    "list",
    epilog=examples(
        "rootstock adapters list --json",
    ),
)
def list_all(url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """List every adapter on the server."""
    with connected(url, key) as client:
        adapters = [adapter.document for adapter in client.list()]
    columns = ("name", "live", "versions", "task", "aliases", "residency")
    rows = ({**a, "versions": len(a.get("versions") or ())} for a in adapters)
    none_yet = "no adapters yet; publish one: rootstock adapters push PATH"
    tell({"adapters": adapters}, as_json, table(columns, rows) if adapters else none_yet)


@app.command(
    epilog=examples(
        "rootstock adapters show support-intents",
    )
)
def show(name: Name, url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """Show one adapter with its aliases and versions."""
    with connected(url, key) as client:
        adapter = client.show(name).document
    columns = ["version", "status", "task", "digest", "bytes", "created", "residency", "golden"]
    rows = [
        {
            **v,
            "digest": str(v.get("digest"))[:19],
            "bytes": v.get("size"),
            "created": str(v.get("created_at"))[:19],
            "golden": (v.get("verification") or {}).get("golden"),
            "signer": ((v.get("verification") or {}).get("signature") or {}).get("signer"),
        }
        for v in adapter.get("versions") or ()
    ]
    if any(row["signer"] for row in rows):
        columns.append("signer")
    head = f"{adapter.get('name')}: {adapter.get('task')}; aliases: {cell(adapter.get('aliases'))}"
    tell(adapter, as_json, head, *rollout_lines(adapter), table(columns, rows))


@app.command(
    epilog=examples(
        "rootstock adapters pull support-intents",
        "rootstock adapters pull support-intents@3 -o backup.zip",
    )
)
def pull(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="The version: NAME for the live one, NAME@3, NAME@ALIAS or NAME@sha256:DIGITS.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write, or the folder for NAME-VERSION.zip. Default: the current folder.",
        ),
    ] = None,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Download the bundle of a version as a zip."""
    with connected(url, key) as client:
        got = client.pull(ref, output or Path())
    document = {"name": got.name, "version": got.version, "file": str(got.path), "bytes": got.size}
    tell(document, as_json, f"{got.name}@{got.version} is in {got.path}: {got.size} bytes")


app.command(
    epilog=examples(
        "rootstock adapters promote support-intents 3",
        "rootstock adapters promote support-intents 3 --alias prod",
    ),
)(promote)


app.command(
    "alias",
    epilog=examples(
        "rootstock adapters alias support-intents prod 3",
    ),
)(set_alias)


app.command(
    epilog=examples(
        "rootstock adapters rollback support-intents",
    )
)(rollback)


app.command(
    epilog=examples(
        "rootstock adapters share support-intents",
        "rootstock adapters share support-intents --off",
    )
)(share)


@app.command(
    epilog=examples(
        "rootstock adapters remove support-intents --version 2",
        "rootstock adapters remove support-intents --yes",
        "rootstock adapters remove support-intents --version 2 --purge",
    )
)
def remove(
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, help="Remove this version only. Default: the adapter with all versions.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Remove a version even if aliases or splits use it, with these.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove it for good, also if it is deleted and could still come back.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Remove a version, or an adapter with all its versions.

    `undelete` brings it back within the server's ROOTSTOCK_UNDELETE_DAYS, unless it is purged.
    """
    if "@" in name:
        fail(
            f"{shown(name)} is no name; one version goes with: rootstock adapters remove NAME --version VERSION",
            2,
        )
    with failures():
        check_name(name)
    what = f"{name} with all its versions" if version is None else f"{name}@{version}"
    if not yes and not sys.stdin.isatty():
        fail(f"cannot ask for confirmation, because stdin is not a terminal; to remove {what}, add --yes", 2)
    if not yes and not typer.confirm(f"Remove {what} from {url}?", err=True):
        fail("nothing was removed")
    with connected(url, key) as client:
        client.delete(name, version, force=force, purge=purge)
    tell({"name": name, "version": version, "removed": True}, as_json, f"{what} is removed{' for good' * purge}")


app.command(
    epilog=examples(
        "rootstock adapters split support-intents 4=10",
        "rootstock adapters split support-intents 4=10 5=2.5 --alias prod",
        "rootstock adapters split support-intents --end",
    )
)(split)
app.command(
    epilog=examples(
        "rootstock adapters shadow support-intents 4 --percent 20",
        "rootstock adapters shadow support-intents --end",
    )
)(shadow)
app.command(
    epilog=examples(
        "rootstock adapters rule support-intents --max-disagreement 0.1 --max-error-rate 0.05",
        "rootstock adapters rule support-intents",
        "rootstock adapters rule support-intents --remove",
    )
)(rule)
app.command(
    epilog=examples(
        "rootstock adapters history support-intents --limit 10",
        "rootstock adapters history --json",
    )
)(history)
app.command(
    epilog=examples(
        "rootstock adapters diff support-intents 3 4",
    )
)(diff)
app.command(
    epilog=examples(
        "rootstock adapters deleted support-intents",
    )
)(deleted)
app.command(
    epilog=examples(
        "rootstock adapters undelete support-intents 2",
        "rootstock adapters undelete support-intents",
    )
)(undelete)
app.command(
    "import",
    epilog=examples(
        "rootstock adapters import ./bundles --home /srv/rootstock",
    ),
)(import_folder)
app.command(
    epilog=examples(
        "rootstock adapters verify ./peft-output --labels negative,positive",
    )
)(verify)
app.command(
    epilog=examples(
        "rootstock adapters keygen ~/keys/release.pem",
    )
)(keygen)
app.command(
    epilog=examples(
        "rootstock adapters sign support-intents.zip --key ~/keys/release.pem",
    )
)(sign)
app.command(
    epilog=examples(
        "rootstock adapters convert ./loha-output loha-as-lora.zip",
        "rootstock adapters convert ./checkpoint-500 intents.zip --texts my-texts.txt",
        "rootstock adapters convert classifier.skops topics.zip --labels sports,politics",
    )
)(convert)
app.command(
    epilog=examples(
        "rootstock adapters fsck --home /srv/rootstock",
        "rootstock adapters fsck --repair",
    )
)(fsck)
app.command(
    epilog=examples(
        "rootstock adapters backup /backups/rootstock --home /srv/rootstock",
    )
)(backup)
app.command(
    epilog=examples(
        "rootstock adapters restore /backups/rootstock --home /srv/rootstock",
    )
)(restore)

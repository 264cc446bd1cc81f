"""The `rootstock adapters` commands. Each command imports its heavy packages itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import is_zipfile

import typer

from rootstock.adapters.cli.convert_command import convert
from rootstock.adapters.cli.deletion_commands import deleted, undelete
from rootstock.adapters.cli.history_commands import diff, history
from rootstock.adapters.cli.home_commands import backup, fsck, restore
from rootstock.adapters.cli.offline_commands import import_folder, verify
from rootstock.adapters.cli.options import (
    URL,
    Activate,
    Base,
    Json,
    Key,
    Labels,
    Length,
    MaxDifference,
    Name,
    Problem,
    Rank,
    ServerUrl,
    SignKey,
    Task,
    Texts,
    TrustPickle,
    Url,
    examples,
    listed,
)
from rootstock.adapters.cli.output import (
    cell,
    compared,
    fail,
    failures,
    notes,
    published_lines,
    signature_line,
    table,
    tell,
    tell_pointer,
)
from rootstock.adapters.cli.rollout_commands import rollout_lines, rule, shadow
from rootstock.adapters.cli.signing_commands import keygen, sign
from rootstock.adapters.cli.source_commands import SourceArguments, conversion_lines, located, source_bundle
from rootstock.adapters.cli.split_command import split
from rootstock.adapters.reference import LIVE, check_name, shown
from rootstock.adapters.sources.limits import MAX_DIFFERENCE

if TYPE_CHECKING:
    from rootstock.adapters.client.client import Client
    from rootstock.adapters.client.upload import UploadSource

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


@app.command(
    epilog=examples(
        "rootstock adapters push support-intents.zip",
        "rootstock adapters push ./peft-output --name sentiment --labels negative,positive",
        "rootstock adapters push new.zip --name sentiment --no-activate",
        "rootstock adapters push ./setfit-model --name intents --trust-pickle",
        "rootstock adapters push org/name@main --name sentiment",
        "rootstock adapters push support-intents.zip --sign-key ~/keys/release.pem",
    )
)
def push(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A bundle or a plain PEFT folder, zipped or not; a folder of sentence-transformers, SetFit or "
            "transformers; an estimator of scikit-learn (.skops); or org/name@revision of the Hugging Face hub.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The name to publish under. Default: the last part of PATH, without .zip.")
    ] = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    foundation: Base = None,
    rank: Rank = "auto",
    max_difference: MaxDifference = MAX_DIFFERENCE,
    texts: Texts = None,
    trust_pickle: TrustPickle = False,
    activate: Activate = True,
    sign_key: SignKey = None,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Publish an adapter as the next version of its name.

    The server verifies the adapter first. If a check fails, nothing changes.

    A model of another library becomes a bundle on this machine first, as `convert` does it. --foundation then
    names the foundation that it was trained from.
    """
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain |= {"labels": listed(labels)}
    found = located(path, trust_pickle)
    made = source_bundle(found, plain, SourceArguments(rank, max_difference, texts, trust_pickle, foundation))
    if made is None and found.path.is_file() and not is_zipfile(found.path):
        fail(f"{path} is not a zip: give a bundle's zip, or the folder that save_pretrained wrote", 2)
    source: UploadSource = found.path
    if made is None:
        plain["foundation"] = foundation
    else:
        source, plain = made.bundle.to_zip(), {}
    with _connected(url, key) as client:
        published = client.push(
            source, name or found.name, activate=activate, progress=True, sign_key=sign_key, **plain
        )
        is_live = activate and not published.awaits_approval
        live = published.version if is_live else client.show(published.name).live
    document = {**published.document, "created": published.created}
    if made is not None:
        document["source"] = {**made.to_json(), **found.provenance}
    verification = published.verification
    tell(
        document,
        as_json,
        *published_lines(published, live),
        f"digest {published.digest}",
        compared(verification),
        *([signature_line(verification["signature"])] if verification.get("signature") else []),
        *found.lines,
        *([] if made is None else conversion_lines(made)),
        *(["chats have the bundle's chat template"] if verification.get("chat_template") else []),
        *notes(verification.get("warnings") or (), verification.get("ignored") or ()),
    )


@app.command(
    "publish-from",
    epilog=examples(
        "rootstock adapters publish-from hf://org/name@0123456789abcdef0123456789abcdef01234567 --name sentiment",
        "rootstock adapters publish-from s3://models/intents.zip#sha256=… --name intents",
    ),
)
def publish_from(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An address: hf://org/name@COMMIT, https://host/path.zip or s3://bucket/key; the last two may "
            "end in #sha256=DIGITS.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The name to publish under.")],
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    foundation: Base = None,
    activate: Activate = True,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let the server fetch an adapter and publish it.

    The server verifies it as an upload. It fetches only from the hosts that its operator allows.
    """
    plain: dict[str, Any] = {"task": task, "problem_type": problem_type, "max_length": max_length}
    plain |= {"labels": listed(labels), "foundation": foundation}
    with _connected(url, key) as client:
        published = client.publish_from(source, name, activate=activate, **plain)
        is_live = activate and not published.awaits_approval
        live = published.version if is_live else client.show(published.name).live
    verification = published.verification
    tell(
        {**published.document, "created": published.created},
        as_json,
        *published_lines(published, live),
        f"digest {published.digest}",
        compared(verification),
        signature_line(verification.get("signature")),
        *notes(verification.get("warnings") or (), verification.get("ignored") or ()),
    )


@app.command(
    "list",
    epilog=examples(
        "rootstock adapters list --json",
    ),
)
def list_all(url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """List every adapter on the server."""
    with _connected(url, key) as client:
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
    with _connected(url, key) as client:
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
    with _connected(url, key) as client:
        got = client.pull(ref, output or Path())
    document = {"name": got.name, "version": got.version, "file": str(got.path), "bytes": got.size}
    tell(document, as_json, f"{got.name}@{got.version} is in {got.path}: {got.size} bytes")


@app.command(
    epilog=examples(
        "rootstock adapters promote support-intents 3",
        "rootstock adapters promote support-intents 3 --alias prod",
    ),
)
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


@app.command(
    "alias",
    epilog=examples(
        "rootstock adapters alias support-intents prod 3",
    ),
)
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
    with _connected(url, key) as client:
        tell_pointer(client.promote(name, version, alias), as_json)


@app.command(
    epilog=examples(
        "rootstock adapters rollback support-intents",
    )
)
def rollback(name: Name, url: Url = URL, key: Key = None, as_json: Json = False) -> None:
    """Move `live` back to the version that it pointed at before."""
    with _connected(url, key) as client:
        tell_pointer(client.rollback(name), as_json)


@app.command(
    epilog=examples(
        "rootstock adapters share support-intents",
        "rootstock adapters share support-intents --off",
    )
)
def share(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Take it back: only its own tenant uses it.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let all tenants of the server use an adapter."""
    with _connected(url, key) as client:
        sharing = client.share(name, not off)
    who = "all tenants" if sharing.shared else "its own tenant alone"
    tell(sharing.document, as_json, f"{sharing.name} is for {who}")


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
    with _connected(url, key) as client:
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


@contextmanager
def _connected(url: str, key: str | None) -> Iterator[Client]:
    from rootstock.adapters.client.client import Client

    with failures(), Client(url, key or None) as client:
        yield client

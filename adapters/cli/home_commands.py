"""The `rootstock adapters` commands on a home: fsck, backup, restore. Each imports its heavy packages itself."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.adapters.cli.options import Json
from rootstock.adapters.cli.output import fail, failures, measured, tell
from rootstock.adapters.home_folder import DEFAULT_HOME

if TYPE_CHECKING:
    from rootstock.adapters.home.fsck import Check
    from rootstock.adapters.home.home import Home

_GRACE = 3600
HomePath = Annotated[
    Path, typer.Option(envvar="ROOTSTOCK_HOME", help="The server's home folder.", show_default=True)
]


def fsck(
    home: HomePath = DEFAULT_HOME,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Remove bundles that no version has and left-over files, and mark versions whose bytes are "
            "missing or wrong.",
        ),
    ] = False,
    grace: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="The age from which a bundle that no version has is a fault. A younger one may belong to an "
            "upload in progress.",
        ),
    ] = _GRACE,
    as_json: Json = False,
) -> None:
    """Check a home: its versions against its stored bundles.

    The command reads every bundle that a version has, and finds missing ones, ones with other bytes than their
    digest states, bundles that no version has, and left-over files. A server may use the home meanwhile. The
    registry is neither created nor upgraded. With ROOTSTOCK_REGISTRY_URL and ROOTSTOCK_STORE_URL, the command
    checks what these name, as the server uses it.

    With --repair, a version without its bytes gets the status `damaged`. It is ready again once the same bundle
    is published again, or its file is restored and the command has run again.

    Exit codes: 0 without a finding; 1 with one, repaired or not; 2 for wrong usage.
    """
    from rootstock.adapters.home.fsck import fsck as check_home
    from rootstock.adapters.home.home import shared_registry, shared_store

    opened = _existing(home)
    with (
        failures(),
        closing(opened.registry_to_check(shared_registry())) as registry,
        measured("checking") as progress,
    ):
        check = check_home(
            registry,
            opened.store_to_check(shared_store()),
            grace=timedelta(seconds=grace),
            repair=repair,
            progress=progress,
        )
    tell(check.to_json(), as_json, *_lines(check))
    if check.findings:
        raise typer.Exit(1)


def backup(
    target: Annotated[
        Path,
        typer.Argument(metavar="DEST", file_okay=False, help="A new folder, or the folder of an earlier backup."),
    ],
    home: HomePath = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Copy a home, also while a server uses it.

    The backup is the state of one moment, has the form of a home, and is checked as `fsck` checks a home. Into an
    earlier backup the command copies what is new. Exports of foundations are no part of it: a server makes them
    again.

    Exit codes: 0 if the backup is whole; 1 if it could not be made, or lacks bundles that the home lacks too; 2
    for wrong usage.
    """
    from rootstock.adapters.home.backup import back_up
    from rootstock.adapters.home.home import shared_store

    opened = _existing(home)
    _refuse_shared()
    with failures(), measured("copying") as progress:
        done = back_up(opened, target.expanduser().absolute(), progress, store_url=shared_store())
    tell(done.to_json(), as_json, f"{done.copied} bundles copied to {target}", *_lines(done.check))
    if done.check.findings:
        raise typer.Exit(1)


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", exists=True, file_okay=False, help="The folder of a backup.")
    ],
    home: HomePath = DEFAULT_HOME,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the registry of a home that was used, and restore what is whole of a damaged backup.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a backup into a home, and check the home.

    Exit codes: 0 if the home is whole; 1 if nothing was restored, or the home lacks bundles; 2 for wrong usage.
    """
    from rootstock.adapters.home.backup import restore as restore_backup
    from rootstock.adapters.home.home import Home, shared_store

    opened, backup = Home(home.expanduser().absolute()), source.expanduser().absolute()
    _refuse_shared()
    with failures(), measured("copying") as progress:
        done = restore_backup(backup, opened, force=force, progress=progress, store_url=shared_store())
    tell(done.to_json(), as_json, f"{done.copied} bundles copied to {opened.folder}", *_lines(done.check))
    if done.check.findings:
        raise typer.Exit(1)


def _existing(home: Path) -> Home:
    from rootstock.adapters.home.home import Home

    folder = home.expanduser().absolute()
    if not folder.is_dir():
        fail(f"{folder} is no folder; name a server's home with --home or ROOTSTOCK_HOME", 2)
    return Home(folder)


def _refuse_shared() -> None:
    """End the command if ROOTSTOCK_REGISTRY_URL names a registry: a backup holds one that is in a home."""
    from rootstock.adapters.home.home import shared_registry

    if shared_registry():
        fail(
            "ROOTSTOCK_REGISTRY_URL names a registry outside the home, and this command copies one in a home; "
            "use that database's own tools, such as pg_dump, and the provider's for the store",
            2,
        )


def _lines(check: Check) -> list[str]:
    lines = []
    for finding in check.findings:
        bundle = "" if finding.digest is None else f" {finding.digest}"
        names = f" ({', '.join(finding.versions)})" if finding.versions else ""
        done = f": {finding.done}" if finding.done else ""
        lines.append(f"{finding.kind}{bundle}{names}: {finding.problem}{done}")
    recent = f", {check.recent} of them without a version yet" if check.recent else ""
    found = len(check.findings)
    state = "no fault" if not found else f"{found} fault{'s' if found > 1 else ''}"
    deleted = f" and {check.deleted} deleted ones" if check.deleted else ""
    return [*lines, f"{check.versions} versions{deleted}, {check.bundles} bundles{recent}: {state}"]

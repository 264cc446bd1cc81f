"""The `rootstock adapters` commands that need no server. Each command imports its heavy packages itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import (
    FOUNDATION_HELP,
    Json,
    Labels,
    Length,
    MaxBundle,
    MaxRank,
    Problem,
    Source,
    Task,
    TrustedKeysText,
    listed,
    trusted_keys,
)
from rootstock.adapters.cli.output import counted, fail, failures, in_options, notes, signature_line, tell
from rootstock.adapters.home_folder import DEFAULT_HOME, searched_homes

if TYPE_CHECKING:
    from rootstock.adapters.bundle import Limits
    from rootstock.adapters.signing.trusted_keys import TrustedKeys

_MIB = 2**20
_INTERRUPTED = 130


def verify(
    path: Source,
    foundation: Annotated[
        str | None,
        typer.Option(help=f"{FOUNDATION_HELP} Default: `default`, if the adapter names no other base."),
    ] = None,
    task: Task = None,
    labels: Labels = None,
    problem_type: Problem = None,
    max_length: Length = None,
    max_bundle_mb: MaxBundle = 64,
    max_rank: MaxRank = 64,
    trusted: TrustedKeysText = "",
    as_json: Json = False,
) -> None:
    """Check an adapter and its signature on this machine.

    This runs every check that needs no model. The server replays the golden set on upload. If the server has
    other limits than 64 MiB and rank 64, state them.
    """
    from rootstock.adapters.bundle import Limits, PlainFields
    from rootstock.adapters.bundle.archive import open_archive
    from rootstock.adapters.client.upload import read_source
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.adapters.home.offline import open_offline
    from rootstock.adapters.spec import Rejected

    keys = trusted_keys(trusted)
    try:
        with failures():
            plain = (task, listed(labels), problem_type, max_length)
            limits = Limits(max_bundle_bytes=max_bundle_mb * _MIB, max_rank=max_rank)
            spec, bundle, adapter = open_offline(path, foundation, plain, limits)
            archive = open_archive(read_source(path)[0], limits)
            signature = keys.check(archive, PlainFields(*plain, foundation))
    except FoundationError as error:
        fail(str(error), 2)
    except Rejected as error:
        fail(in_options(f"{path} would be refused: {error}"))
    checked = ["size", "members", "schema", "tensor names and shapes", "finite values", "rank", "labels"]
    other_limits = f"limits of a server other than {max_bundle_mb} MiB and rank {max_rank}"
    unchecked = ["golden replay (the server does it on upload)", other_limits]
    has_fingerprint = bundle.manifest.foundation["fingerprint"] is not None
    (checked if has_fingerprint else unchecked).append("foundation fingerprint")
    report: dict[str, Any] = {"digest": adapter.digest, "task": adapter.task, "labels": adapter.labels}
    report |= {"foundation": spec.fingerprint, "rank": adapter.weights.max_rank}
    report |= {"checked": checked, "not_checked": unchecked, "warnings": bundle.warnings}
    report |= {"ignored": bundle.ignored, "signature": signature}
    labels_text = ", ".join(adapter.labels)
    tell(
        report,
        as_json,
        f"{path} passes on {spec.name}: {adapter.task}, rank {report['rank']}, labels {labels_text}",
        f"digest {adapter.digest}",
        signature_line(signature),
        f"checked: {', '.join(checked)}",
        f"not checked: {', '.join(unchecked)}",
        *notes(bundle.warnings, bundle.ignored),
    )


def import_folder(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, help="The folder with the bundles, as zips or folders."
        ),
    ],
    home: Annotated[
        Path, typer.Option(envvar="ROOTSTOCK_HOME", help="The server's home folder.", show_default=True)
    ] = DEFAULT_HOME,
    foundation: Annotated[str, typer.Option(envvar="ROOTSTOCK_FOUNDATION", help=FOUNDATION_HELP)] = "default",
    max_bundle_mb: MaxBundle = 64,
    max_rank: MaxRank = 64,
    trusted: TrustedKeysText = "",
    as_json: Json = False,
) -> None:
    """Register all bundles of a folder in a stopped server's home.

    Each *.zip and each folder in DIR becomes the live version of the adapter with its name. It must pass the
    checks of an upload, except the golden replay; the version's record says that the replay was left out.

    With --foundation on the command line, plain PEFT folders count as trained on that foundation, even if they
    name another base.

    A bundle that is already registered stays unchanged, so the same command continues an interrupted import. A
    bundle that fails a check is named on stderr and skipped. If a server uses the home folder, the command does
    nothing: push to that server instead.

    Exit codes: 0 if every bundle is registered; 1 if some were skipped or none could be registered; 2 for wrong
    usage; 130 if interrupted.
    """
    from rootstock.adapters.bundle import Limits
    from rootstock.adapters.home.bulk_import import bundles_in

    paths = bundles_in(folder)
    if not paths:
        fail(f"{folder} holds no *.zip and no folder to import", 2)
    limits = Limits(max_bundle_bytes=max_bundle_mb * _MIB, max_rank=max_rank)
    # Compare by name, because typer has its own copy of click's class.
    source = ctx.get_parameter_source("foundation")
    stated = source is not None and source.name == "COMMANDLINE"
    report = _import(paths, home.expanduser().absolute(), foundation, limits, stated, trusted_keys(trusted))
    imported, unchanged, skipped = report["imported"], report["unchanged"], len(report["skipped"])
    lines = [f"{imported} imported, {unchanged} already registered, {skipped} skipped"]
    if report["interrupted"]:
        lines.append("interrupted: run the same command again to import the rest")
    tell(report, as_json, *lines)
    if report["interrupted"] or report["skipped"]:
        raise typer.Exit(_INTERRUPTED if report["interrupted"] else 1)


def _import(
    paths: list[Path], home: Path, foundation: str, limits: Limits, stated: bool, trusted: TrustedKeys
) -> dict[str, Any]:
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.foundation.weights import FoundationWeights
    from rootstock.adapters.home.bulk_import import ImportedBundle, import_bundles
    from rootstock.adapters.home.home import Home
    from rootstock.adapters.home.offline import describe_in

    report: dict[str, Any] = {"imported": 0, "unchanged": 0, "skipped": [], "interrupted": False}
    with failures(), counted("importing", len(paths)) as count:
        try:
            files = locate(foundation, searched_homes(home))
            spec = describe_in(Home(home), files)
            base = FoundationWeights(files.folder, spec.model_type)
            with (
                _interrupted() as stopped,
                closing(import_bundles(paths, home, spec, limits, base, stopped, stated, trusted)) as outcomes,
            ):
                for outcome in outcomes:
                    if isinstance(outcome, ImportedBundle):
                        report["imported" if outcome.created else "unchanged"] += 1
                        count(None)
                    else:
                        reason = in_options(outcome.reason)
                        report["skipped"].append({"file": outcome.file, "reason": reason})
                        count(f"{outcome.file} is skipped: {reason}")
                finished = report["imported"] + report["unchanged"] + len(report["skipped"])
                report["interrupted"] = stopped.is_set() and finished < len(paths)
        except FoundationError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            report["interrupted"] = True
    return report


@contextmanager
def _interrupted() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; the second Ctrl-C raises KeyboardInterrupt.

    The first one raises nothing: an exception between two steps could leave a lock that no one releases, or
    get lost.
    """
    stopped = Event()
    if current_thread() is not main_thread():
        yield stopped
        return

    def stop(number: int, frame: object) -> None:
        stopped.set()
        signal.signal(number, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)

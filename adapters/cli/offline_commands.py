"""The `rootstock adapters` commands that need no server. What is heavy is imported inside."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import FOUNDATION_HELP, Json, Labels, Length, Problem, Source, Task, listed
from rootstock.adapters.cli.output import counted, fail, failures, in_options, notes, tell

if TYPE_CHECKING:
    from rootstock.adapters.bundle import Limits

_MIB = 2**20
_INTERRUPTED = 130


def verify(
    path: Source,
    foundation: Annotated[str | None, typer.Option(help=f"{FOUNDATION_HELP} Else the default one.")] = None,
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
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.adapters.home.offline import open_offline
    from rootstock.adapters.spec import Rejected

    try:
        with failures():
            plain = (task, listed(labels), problem_type, max_length)
            spec, bundle, adapter = open_offline(path, foundation, plain)
    except FoundationError as error:
        fail(str(error), 2)
    except Rejected as error:
        fail(in_options(f"{path} would be refused: {error}"))
    checked = ["size", "members", "schema", "tensor names and shapes", "finite values", "rank", "labels"]
    unchecked = ["golden replay (the server does it on upload)", "the server's own limits"]
    stated = bundle.manifest.foundation["fingerprint"] is not None
    (checked if stated else unchecked).append("foundation fingerprint")
    told: dict[str, Any] = {"digest": adapter.digest, "task": adapter.task, "labels": adapter.labels}
    told |= {"foundation": spec.fingerprint, "rank": adapter.weights.max_rank}
    told |= {"checked": checked, "not_checked": unchecked, "warnings": bundle.warnings}
    told["ignored"] = bundle.ignored
    tell(
        told,
        as_json,
        f"{path} passes on {spec.name}: {adapter.task}, rank {told['rank']}, labels {', '.join(adapter.labels)}",
        f"digest {adapter.digest}",
        f"checked: {', '.join(checked)}",
        f"not checked: {', '.join(unchecked)}",
        *notes(bundle.warnings, bundle.ignored),
    )


def import_folder(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Holds zips and folders.")
    ],
    home: Annotated[
        Path, typer.Option(envvar="ROOTSTOCK_HOME", help="The server's home folder.", show_default=True)
    ] = Path("~/.rootstock"),
    foundation: Annotated[str, typer.Option(envvar="ROOTSTOCK_FOUNDATION", help=FOUNDATION_HELP)] = "default",
    max_bundle_mb: Annotated[
        int, typer.Option(envvar="ROOTSTOCK_MAX_BUNDLE_MB", min=1, help="Largest zip.")
    ] = 64,
    max_rank: Annotated[int, typer.Option(envvar="ROOTSTOCK_MAX_RANK", min=1, help="Largest rank.")] = 64,
    as_json: Json = False,
) -> None:
    """Register every bundle in a folder, straight into a server's home, while the server is stopped.

    Each *.zip and each folder in DIR becomes a version of the adapter that is named like it, and live, once it
    passes what an upload has to pass; only the golden replay is left out, and the version's record says so.
    --foundation says that plain PEFT folders were trained on it, whatever they call their base. A
    bundle that is registered already is left alone, so that the same command goes on where it was interrupted.
    One that fails a check is named on stderr and skipped. While a server uses the home nothing is done: push to
    that one.

    Exit code 0: every bundle is registered; 1: some were skipped, or none could be; 2: wrong usage.

    Example: rootstock adapters import ./bundles --home /srv/rootstock
    """
    from rootstock.adapters.bundle import Limits
    from rootstock.adapters.home.bulk_import import bundles_in

    paths = bundles_in(folder)
    if not paths:
        fail(f"{folder} holds no *.zip and no folder to import", 2)
    limits = Limits(max_bundle_bytes=max_bundle_mb * _MIB, max_rank=max_rank)
    # By its name: typer has a copy of click's class.
    source = ctx.get_parameter_source("foundation")
    stated = source is not None and source.name == "COMMANDLINE"
    told = _import(paths, home.expanduser().absolute(), foundation, limits, stated)
    lines = [f"{told['imported']} imported, {told['unchanged']} there already, {len(told['skipped'])} skipped"]
    if told["interrupted"]:
        lines.append("interrupted: the same command does the rest")
    tell(told, as_json, *lines)
    if told["interrupted"] or told["skipped"]:
        raise typer.Exit(_INTERRUPTED if told["interrupted"] else 1)


def _import(paths: list[Path], home: Path, foundation: str, limits: Limits, stated: bool) -> dict[str, Any]:
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.foundation.weights import FoundationWeights
    from rootstock.adapters.home.bulk_import import ImportedBundle, import_bundles
    from rootstock.adapters.home.offline import describe_in

    told: dict[str, Any] = {"imported": 0, "unchanged": 0, "skipped": [], "interrupted": False}
    with failures(), counted("importing", len(paths)) as count:
        try:
            files = locate(foundation)
            spec = describe_in(home, files)
            base = FoundationWeights(files.folder, spec.model_type)
            with (
                _interrupted() as stopped,
                closing(import_bundles(paths, home, spec, limits, base, stopped, stated)) as outcomes,
            ):
                for outcome in outcomes:
                    if isinstance(outcome, ImportedBundle):
                        told["imported" if outcome.created else "unchanged"] += 1
                        count(None)
                    else:
                        reason = in_options(outcome.reason)
                        told["skipped"].append({"file": outcome.file, "reason": reason})
                        count(f"{outcome.file} is skipped: {reason}")
                seen = told["imported"] + told["unchanged"] + len(told["skipped"])
                told["interrupted"] = stopped.is_set() and seen < len(paths)
        except FoundationError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            told["interrupted"] = True
    return told


@contextmanager
def _interrupted() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; the second one raises KeyboardInterrupt.

    An exception between any two steps could end in a lock that nobody holds any more, or be lost.
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

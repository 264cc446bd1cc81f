"""The commands of `rootstock foundation`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rootstock.adapters.cli.options import Json, examples
from rootstock.adapters.installation import lack
from rootstock.service.cli.serve import FOUNDATION, fail

if TYPE_CHECKING:
    from rootstock.adapters.foundation.location import FoundationFiles
    from rootstock.adapters.spec import FoundationSpec

foundation = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show, export or check the foundation model.",
    epilog=examples("rootstock foundation show", "rootstock foundation export --int8"),
)


@foundation.command("show", epilog=examples("rootstock foundation show --foundation ./my-model --json"))
def show(
    foundation: Annotated[str | None, FOUNDATION] = None,
    as_json: Json = False,
) -> None:
    """Print each foundation's name, folder, fingerprint and tasks."""
    described = _describe(foundation)
    if as_json:
        documents = [{**spec.to_json(), "folder": str(folder)} for folder, spec in described.values()]
        sys.stdout.write(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2) + "\n")
        return
    sys.stdout.write("\n".join(_summary(name, folder, spec) for name, (folder, spec) in described.items()))


def _summary(reference: str, folder: Path, spec: FoundationSpec) -> str:
    own = spec.embedding
    pooling = f"{own.pooling} pooling{', normalised' if own.normalize else ''}"
    prefix = f", prefix {own.prefix!r}" if own.prefix else ""
    tasks = "\n".join(f"  {c.task:<26}{c.name}" for c in spec.classes.values())
    kinds = "linear layers and convolutions" if spec.convolutions else "linear layers"
    return (
        f"reference    {reference}\n"
        f"name         {spec.name}{'@' + spec.revision if spec.revision else ''}\n"
        f"folder       {folder}\n"
        f"fingerprint  {spec.fingerprint}\n"
        f"model        {spec.model_type}, {spec.layers} layers, width {spec.hidden_size}, "
        f"{spec.parameters / 1e6:.1f} M parameters\n"
        f"tokens       at most {spec.max_tokens}; {own.max_tokens} for its own embeddings "
        f"({pooling}{prefix})\n"
        f"sites        {len(spec.sites)} {kinds} of the trunk\n"
        f"tasks\n{tasks}\n"
        f"own tasks    {', '.join(spec.own_tasks)}\n"
    )


@foundation.command(
    "export", epilog=examples("rootstock foundation export", "rootstock foundation export --int8")
)
def export(
    foundation: Annotated[str | None, FOUNDATION] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Make and check the int8 export too.")] = False,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Keep the int8 export even if the check fails.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the ONNX export that `rootstock serve` reads.

    It goes into the cache of the home. With --int8, the command also makes an int8 export. It replays the
    golden set of every version that an alias points to on both exports. It keeps the int8 export if the
    outputs differ within the bounds, or with --accept-drift. A server with ROOTSTOCK_PRECISION=int8 needs that
    export.

    Exit codes: 0 if the export is in the cache; 1 if int8 changes too much and was not kept; 2 for wrong usage.
    """
    from rootstock.adapters.cli.output import tell
    from rootstock.adapters.errors import AdapterError, explained
    from rootstock.adapters.foundation.location import FoundationError, generates, locate
    from rootstock.service.exports.cache import find_export
    from rootstock.service.settings import SettingsError, read_settings

    if accept_drift and not int8:
        fail("--accept-drift needs --int8, because only the int8 export changes outputs; add --int8")
    try:
        settings = read_settings(foundation=foundation)
        for setting in settings.hosted.values():
            files = locate(setting, settings.export_folders)
            if generates(files):
                # torch reads the checkpoint itself.
                tell({"path": str(files.folder)}, as_json, str(files.folder))
                continue
            folder = find_export(setting, files, settings.export_folders, "fp32")
            if int8:
                _export_int8(files, settings, folder, accept_drift, as_json)
            else:
                tell({"path": str(folder)}, as_json, str(folder))
    except (SettingsError, FoundationError, AdapterError, OSError) as error:
        fail(explained(error))


@foundation.command("check", epilog=examples("rootstock foundation check --foundation chat --precision int4"))
def check(
    precision: Annotated[Literal["bf16", "int4"], typer.Option(help="The precision to check.")],
    foundation: Annotated[str | None, FOUNDATION] = None,
    as_json: Json = False,
) -> None:
    """Replay golden sets of generated text in another precision.

    It is one of ROOTSTOCK_GENERATION_PRECISION. The command takes every version that an alias points to. It
    compares tokens and log-probabilities as a server of this precision does for an upload.

    Exit codes: 0 if all adapters pass; 1 if a server would refuse one; 2 for wrong usage.
    """
    from rootstock.adapters.cli.output import table, tell
    from rootstock.adapters.errors import AdapterError, explained
    from rootstock.adapters.foundation.location import FoundationError, generates, locate
    from rootstock.service.settings import SettingsError, read_settings

    try:
        settings = read_settings(foundation=foundation)
        setting = next(iter(settings.hosted.values()))
        files = locate(setting, settings.export_folders)
        if not generates(files):
            fail(f"{files.name} generates no text; name a foundation that does, such as chat, with --foundation")
        if problem := lack("torch", f"generating text with {files.name}"):
            fail(problem)
        from rootstock.service.exports.text_check import check_texts

        home, threads = settings.home_folder, settings.runner_threads
        checked = check_texts(files, home, precision, settings.bundle_limits, threads, _replaying)
    except (SettingsError, FoundationError, AdapterError, OSError, ValueError) as error:
        fail(explained(error))
    lines = [f"not checked: {name}: {reason}" for name, reason in checked.not_checked.items()]
    tell(checked.to_json(), as_json, table(checked.COLUMNS, checked.cells()), *lines)
    if checked.refusals:
        fail(f"{precision} changes too much: {'; '.join(checked.refusals)}; serve fp32", 1)


def _export_int8(files: FoundationFiles, settings: Any, fp32: Path, accept_drift: bool, as_json: bool) -> None:
    """Write the int8 export beside the fp32 one if its outputs are within bounds or the drift is accepted."""
    from rootstock.adapters.cli.output import table, tell
    from rootstock.service.exports.cache import int8_candidate, path_of
    from rootstock.service.exports.int8_check import measure

    home = settings.home_folder
    folder = path_of(files, home, "int8")
    with int8_candidate(fp32, folder) as candidate:
        limits, threads = settings.bundle_limits, settings.runner_threads
        drift = measure(fp32, candidate, home, files.folder, limits, threads, _replaying)
        existed = candidate == folder
        accepted = accept_drift or not drift.refusals
        if accepted and not existed:
            os.replace(candidate, folder)
    lines = [f"not checked: {name}: {reason}" for name, reason in drift.not_checked.items()]
    rows = table(drift.COLUMNS, drift.cells())
    tell({**drift.to_json(), "path": str(folder) if accepted or existed else None}, as_json, rows, *lines)
    if not accepted:
        outcome = "the export accepted before stays" if existed else "it is not kept; --accept-drift keeps it"
        fail(f"int8 changes too much: {'; '.join(drift.refusals)}; {outcome}", 1)
    if not as_json:
        sys.stdout.write(f"{folder}\n")


def _replaying(done: int, total: int) -> None:
    if done % 100 == 0:
        sys.stderr.write(f"  replaying golden sets: {done} of {total}\n")


def _describe(foundation: str | None) -> dict[str, tuple[Path, FoundationSpec]]:
    """Return the folder with the files of each foundation, and its spec, by its reference."""
    from rootstock.adapters.foundation.architecture import describe
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.service.settings import SettingsError, read_settings

    try:
        settings = read_settings(foundation=foundation)
        files = {name: locate(setting, settings.export_folders) for name, setting in settings.hosted.items()}
        return {name: (found.folder.absolute(), describe(found)) for name, found in files.items()}
    except (SettingsError, FoundationError) as error:
        fail(str(error))

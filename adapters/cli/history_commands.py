"""The `rootstock adapters` commands that tell what happened to an adapter, and how two versions differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.event_sentences import sentence
from rootstock.adapters.cli.options import URL, Json, Key, Name, Url
from rootstock.adapters.cli.output import cell, connected, table, tell

if TYPE_CHECKING:
    from rich.table import Table

    from rootstock.adapters.client.history.version_diff import FigurePair, VersionDiff

_MOST_LINES = 40
_DIGEST = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")


def history(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The adapter's name. Default: all adapters.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most events to print.")] = 50,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Tell who changed an adapter, when, and how.

    The newest change comes first, and times are in UTC. A deleted adapter keeps its history. `-` stands for a
    program that made the change in the home.
    """
    with connected(url, key) as client:
        events = client.history(name, limit)
    lines = [
        f"{one.at[:19].replace('T', ' ')} {one.who or '-'}: {'' if name else f'{one.name}: '}{sentence(one)}"
        for one in events
    ]
    tell({"events": [dict(one.document) for one in events]}, as_json, *(lines or ["nothing has happened yet"]))


def diff(
    name: Name,
    first: Annotated[int, typer.Argument(metavar="A", min=1, help="The number of the version before.")],
    second: Annotated[int, typer.Argument(metavar="B", min=1, help="The number of the version after.")],
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show how version B of an adapter differs from version A.

    The tables leave out what both versions have in common. --json prints all figures of both.
    """
    with connected(url, key) as client:
        found = client.diff(name, first, second)
    tell(found.document, as_json, *difference_lines(found))


def difference_lines(found: VersionDiff) -> Iterator[str | Table]:
    """Yield the lines and tables that show how the second version differs from the first."""
    columns = "", f"version {found.before}", f"version {found.after}"
    rows = [
        dict(zip(columns, (one.field, _brief(one.before), _brief(one.after)), strict=True))
        for one in found.changes
    ]
    yield table(columns, rows) if rows else f"versions {found.before} and {found.after} are the same"
    yield from _listed("labels", found.labels_added, found.labels_removed)
    if found.labels_moved:
        yield "labels: the order of those in both differs"
    yield from _listed("targets", found.targets_added, found.targets_removed)
    moved = [figure for figure in found.figures if figure.before != figure.after]
    if moved:
        yield table((*columns, "change"), [dict(_row(columns, figure)) for figure in moved])
    if same := len(found.figures) - len(moved):
        yield f"figures that are the same: {same}; see them with --json"
    if found.card:
        yield from found.card[:_MOST_LINES]
        if (more := len(found.card) - _MOST_LINES) > 0:
            yield f"… {more} more lines of the card differ; see them with --json"


def _listed(what: str, added: Iterable[str], removed: Iterable[str]) -> Iterator[str]:
    for how, values in (("added", tuple(added)), ("removed", tuple(removed))):
        if values:
            yield f"{what} {how}: {', '.join(map(cell, values))}"


def _brief(value: Any) -> Any:
    """Return the first digits of a digest, and any other value as it is."""
    return _DIGEST.sub(lambda match: match[1], value) if isinstance(value, str) else value


def _row(columns: tuple[str, str, str], figure: FigurePair) -> Iterator[tuple[str, Any]]:
    yield from zip(columns, (figure.name, figure.before, figure.after), strict=True)
    if figure.before is not None and figure.after is not None:
        yield "change", f"{figure.after - figure.before:+.4g}"

"""Output of the `rootstock adapters` commands: one JSON document, or lines and tables for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from rootstock.adapters.client.errors import ClientError, Misused, Refused, one_line
from rootstock.adapters.errors import AdapterError, InvalidKey, InvalidName, InvalidReference, explained

if TYPE_CHECKING:
    from rich.table import Table

    from rootstock.adapters.client.client import Client
    from rootstock.adapters.client.records import AliasRecord, PublishedRecord

_PROGRAM = "rootstock adapters"
_FORM_FIELD = re.compile(r"the form field [`'](\w+)[`']")
# A check's name, then the form field that the check refuses.
_FIELD_AT = re.compile(r"\b(schema|labels|foundation): (task|labels|problem_type|max_length|foundation): ")


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[str | None], None]]:
    """Yield a function that moves a progress bar on by one; the bar shows on a terminal only.

    The function prints a line that it is given on stderr, terminal or not.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def count(line: str | None) -> None:
            if line is not None:
                console.print(f"rootstock adapters: {one_line(line)}")
            bar.advance(task)

        yield count


@contextmanager
def measured(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that sets a progress bar to a part of a total; the bar shows on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def in_options(message: str) -> str:
    """Return a message in which the command's options replace the names of form fields."""
    message = _FORM_FIELD.sub(lambda match: f"the option {_option(match[1])}", message)
    return _FIELD_AT.sub(lambda match: f"{match[1]}: {_option(match[2])}: ", message)


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def compared(verified: Mapping[str, Any]) -> str:
    """Return one line on the outputs that a server compared before it published an adapter."""
    where = f"on {verified.get('runner')} {verified.get('precision')}"
    inputs, difference = verified.get("inputs"), verified.get("max_difference")
    if difference is None:
        return f"no golden set: no outputs were compared; {inputs} probe input ran {where}"
    return (
        f"golden set {verified.get('golden')}: {inputs} outputs compared {where}, largest difference {difference}"
    )


def signature_line(signature: Mapping[str, Any] | None) -> str:
    """Return one line on the signature in a version's record, None for a version without one."""
    if not signature:
        return "not signed"
    of = (
        ""
        if signature.get("of") == "bundle"
        else "; the signature covers the files and form fields of the upload"
    )
    if signature.get("signer") is None:
        return f"signed by the key {signature.get('key')}, which no list of trusted keys was there to name{of}"
    return f"signed by {signature['signer']}{of}"


def notes(warnings: Iterable[str], ignored: Iterable[str]) -> list[str]:
    """Return a line for each warning of an adapter's check, and a line with the files that it ignored."""
    left_out = ", ".join(ignored)
    lines = [f"warning: {in_options(warning)}" for warning in warnings]
    return [*lines, f"ignored: {left_out}"] if left_out else lines


@contextmanager
def failures(program: str = _PROGRAM) -> Iterator[None]:
    """Print one line on stderr instead of a traceback: exit code 2 for wrong usage, 1 for the rest."""
    try:
        yield
    except (Misused, InvalidName, InvalidReference, InvalidKey) as error:
        fail(str(error), 2, program)
    except ClientError as error:
        status = f" ({error.status} {error.code})" if isinstance(error, Refused) and error.code else ""
        fail(in_options("; ".join(filter(None, (f"{error}{status}", error.advice)))), 1, program)
    except (AdapterError, OSError) as error:
        fail(explained(error), 1, program)


@contextmanager
def connected(url: str, key: str | None) -> Iterator[Client]:
    """Yield a client of a server, with the failures of its calls as `failures` shows them."""
    # Its packages take longer to import than most commands to fail.
    from rootstock.adapters.client.client import Client

    with failures(), Client(url, key or None) as client:
        yield client


def fail(message: str, code: int = 1, program: str = _PROGRAM) -> NoReturn:
    """Print an error on stderr as one line, and end the command with the exit code `code`."""
    typer.echo(f"{program}: {one_line(message)}", err=True)
    raise typer.Exit(code)


def tell(document: Mapping[str, Any], as_json: bool, *lines: str | Table) -> None:
    """Print the document as JSON if `as_json`, else print the lines."""
    if as_json:
        return typer.echo(json.dumps(document))
    for line in lines:
        if isinstance(line, str):
            typer.echo(one_line(line))
        else:
            from rich.console import Console

            # Output that is not a terminal has no width to fit into.
            Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(line)


def published_lines(published: PublishedRecord, live: int | None) -> list[str]:
    """Return lines on a version that was pushed, with how to make it live if `live` is another one."""
    name, version = published.name, published.version
    state = f"{name}@{version} is ready"
    if not published.created:
        state = f"nothing is published: this content is already version {version} of {name}"
    if live == version:
        return [f"{state} and live: {published.task}"]
    other = "no version is live" if live is None else f"live is version {live}"
    make = f"make it live: rootstock adapters promote {name} {version}"
    if published.awaits_approval:
        other, make = f"awaits approval, {other}", f"somebody who may approve it can {make}"
    return [f"{state}, not live ({other}): {published.task}", make]


def tell_pointer(pointer: AliasRecord, as_json: bool) -> None:
    """Print the version that an alias points at."""
    target = f"{pointer.name}@{pointer.alias}"
    tell(pointer.document, as_json, f"{target} is version {pointer.version} ({pointer.digest})")


def table(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of the rows' values in these columns, with `-` for a missing value."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    return table


def cell(value: Any) -> str:
    """Return a value as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "-"
    return "-" if value is None else one_line(value)

"""The arguments, output and error lines that the `rootstock train` commands share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from rootstock.adapters.cli.options import FOUNDATION_HELP
from rootstock.adapters.cli.options import Json as Json
from rootstock.training.characters import on_one_line

if TYPE_CHECKING:
    from rootstock.training.fit.descent import Report
    from rootstock.training.proposal.proposal import Proposal
    from rootstock.training.recipe.recipe_file import RecipeFile

RecipePath = Annotated[
    Path,
    typer.Argument(
        help="The recipe, a YAML file; or labelled rows (.csv, .jsonl, .parquet, .conll, or a folder of images), "
        "which give one.",
        metavar="RECIPE",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        help="Changes to the recipe, such as training.seed=3.", metavar="KEY=VALUE", show_default=False
    ),
]
BundlePath = Annotated[
    Path, typer.Argument(help="A bundle: its zip or its folder.", metavar="BUNDLE", show_default=False)
]
Foundation = Annotated[
    str,
    typer.Option(
        envvar="ROOTSTOCK_FOUNDATION",
        help=FOUNDATION_HELP,
    ),
]


@contextmanager
def failures() -> Iterator[None]:
    """Print an error as one line on stderr. Exit with code 2 if the caller can fix the cause, else with 1."""
    from rootstock.adapters.client.errors import ClientError
    from rootstock.adapters.foundation.location import FoundationError
    from rootstock.adapters.spec import Rejected
    from rootstock.training.errors import TrainingError

    try:
        yield
    except (TrainingError, FoundationError) as error:
        typer.echo(f"rootstock train: {error}", err=True)
        raise typer.Exit(2) from None
    except Rejected as error:
        typer.echo(f"rootstock train: the trained adapter could not be served: {error}", err=True)
        raise typer.Exit(1) from None
    except (ClientError, OSError) as error:
        typer.echo(f"rootstock train: {error}", err=True)
        raise typer.Exit(1) from None


def read_recipe(path: Path, changes: Sequence[str] | None) -> RecipeFile:
    """Return the recipe of a command, with its changes; print on stderr what is chosen for labelled rows.

    Raise TrainingError if there is none.
    """
    from rootstock.training.proposal.proposal import is_data, propose
    from rootstock.training.recipe.recipe_file import load_recipe

    if not is_data(path):
        return load_recipe(path, changes or ())
    proposal = propose(path, changes or ())
    for line in chosen(proposal):
        typer.echo(line, err=True)
    return proposal.source


def chosen(proposal: Proposal) -> list[str]:
    """Return what was chosen for labelled rows, a line for each choice."""
    recipe, why = proposal.source.recipe, proposal.choices
    data = recipe.data
    named = (
        f"texts from {data.text_column}, labels from {data.label_column}" if recipe.task_type == "SEQ_CLS" else ""
    )
    if recipe.generates and data.messages_column is None:
        named = f"prompts from {recipe.prompts.template}, answers from {recipe.prompts.completion}"
    lines = {"task": f"{recipe.task_type}, {why['task_type']}", "columns": named, "split": why["splits"]}
    lines |= {"choice": why.get("choose_by", ""), "conflicts": why.get("conflicts", "")}
    return [on_one_line(f"{name:<10}{text}") for name, text in lines.items() if text]


@contextmanager
def progress(name: str) -> Iterator[Report]:
    """Show a progress bar with the time left, on stderr: stdout is for results."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(name, total=None, note="preparing")

        def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
            bar.update(task, completed=done, total=total, note=note + _speed(rate))

        yield report


def _lines(name: str) -> Report:
    """Return a report that prints a line after each tenth of a stage, for output that is no terminal."""
    before = 0

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        nonlocal before
        # Fewer steps than before, or as many, are those of the next stage.
        tenth, before = (0 if done <= before else before * 10 // total), done
        if done * 10 // total > tenth:
            typer.echo(f"{name}: {done} of {total} steps, {note}{_speed(rate)}", err=True)

    return report


def _speed(rate: float) -> str:
    return f", {rate:.0f} tokens/s" if rate else ""


def show(value: Any, as_json: bool, *lines: str) -> None:
    """Print the value as JSON, or the lines."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table on stdout; numbers have three decimals."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)

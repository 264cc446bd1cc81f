"""The `rootstock train` commands. torch and transformers are imported by `run` alone, when it starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from training.run import Outcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train an adapter from a labelled file: recipe, training, hold-out evaluation, bundle.",
)

RecipePath = Annotated[
    Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE", show_default=False)
]


@app.command()
def run(
    recipe: RecipePath,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the results go, instead of the recipe's output_dir.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary on stdout.")] = False,
) -> None:
    """Train, evaluate and pack one adapter: `metrics.json`, `bundle/` and `NAME.zip` in the output folder.

    Example: `rootstock train run training/recipes/support-intents.yaml`

    Example: `rootstock train run my.yaml --output-dir runs/try-2 --json > summary.json`
    """
    with _failures():
        from training.recipe import load_recipe

        source = load_recipe(recipe)
        with _progress(source.recipe.name) as report:
            from training.run import run as train

            outcome = train(source, output_dir, report)
    if as_json:
        typer.echo(json.dumps(_summary(outcome), ensure_ascii=False))
    else:
        _print(outcome)


@app.command()
def validate(recipe: RecipePath) -> None:
    """Check a recipe, its data and its split, and say what would be trained; trains nothing.

    Example: `rootstock train validate training/recipes/entities.yaml`
    """
    with _failures():
        from adapters.foundation import locate
        from training.data import read_dataset
        from training.recipe import load_recipe
        from training.split import split

        source = load_recipe(recipe)
        dataset = read_dataset(source)
        parts = split(dataset, source.recipe.data.splits)
        files = locate(source.recipe.base_model)
    sizes = ", ".join(f"{count} {name}" for name, count in parts.sizes.items())
    typer.echo(f"{recipe}: valid")
    typer.echo(f"  foundation  {files.name}")
    typer.echo(f"  data        {dataset.path}: {sizes}; {parts.duplicates} duplicates left out")
    typer.echo(f"  labels      {', '.join(dataset.labels)}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and other programs.

    Example: `rootstock train schema > recipe.schema.json`
    """
    from training.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


@contextmanager
def _failures() -> Iterator[None]:
    """One line on stderr instead of a traceback: exit code 2 for what the caller can mend, 1 for the rest."""
    from adapters.foundation import FoundationError
    from adapters.spec import Rejected
    from training.errors import TrainingError

    try:
        yield
    except (TrainingError, FoundationError) as error:
        typer.echo(f"rootstock train: {error}", err=True)
        raise typer.Exit(2) from None
    except Rejected as error:
        typer.echo(f"rootstock train: the trained adapter could not be served: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"rootstock train: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with the time left, on stderr so that stdout holds results alone."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(name, total=None, note="preparing")

        def report(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield report


def _lines(name: str) -> Callable[[int, int, str], None]:
    """A line at the end of each tenth of the steps, for logs, where a bar cannot be drawn."""

    def report(done: int, total: int, note: str) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            typer.echo(f"{name}: {done} of {total} steps, {note}", err=True)

    return report


def _summary(outcome: Outcome) -> dict[str, Any]:
    paths = {"bundle": str(outcome.written.folder), "zip": str(outcome.written.zip)}
    return {**outcome.metrics, **paths, "publish": _publish_line(outcome)}


def _publish_line(outcome: Outcome) -> str:
    return f"rootstock adapters push {outcome.written.zip} --name {outcome.metrics['name']}"


def _print(outcome: Outcome) -> None:
    from rich.table import Table

    test = outcome.metrics["test"]
    named = {"this adapter": test["adapter"], **test["baselines"]}
    columns = [k for k, v in test["adapter"].items() if isinstance(v, float)]
    table = Table(
        title=f"{outcome.metrics['name']}: {test['adapter']['rows']} held-out rows", title_justify="left"
    )
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in named.items():
        table.add_row(name.replace("_", " "), *(f"{figures[k]:.3f}" for k in columns))
    Console().print(table)
    typer.echo(f"bundle   {outcome.written.folder}")
    typer.echo(f"zip      {outcome.written.zip} ({outcome.written.zip.stat().st_size / 1e6:.2f} MB)")
    typer.echo(f"digest   {outcome.digest}")
    typer.echo(f"publish  {_publish_line(outcome)}")

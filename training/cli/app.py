"""The `rootstock train` commands. Each imports heavy packages when it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import examples
from rootstock.adapters.tasks import task_named
from rootstock.training.cli.data_commands import audit, rank_base, suggest
from rootstock.training.cli.examples import examples_of
from rootstock.training.cli.init_command import init
from rootstock.training.cli.model_commands import compare, evaluate, explain, export
from rootstock.training.cli.options import (
    Changes,
    Json,
    RecipePath,
    failures,
    progress,
    read_recipe,
    show,
    show_table,
)
from rootstock.training.cli.study_commands import bench, cv, federate, study, sweep

if TYPE_CHECKING:
    from rootstock.training.recipe.recipe_file import RecipeFile
    from rootstock.training.results import RunResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Train an adapter from labelled rows, and study it.",
    epilog=examples(
        "rootstock train run intents.csv", "rootstock train run my.yaml --push http://127.0.0.1:3000"
    ),
)


@app.command(epilog=examples_of("run"))
def run(
    recipe: RecipePath,
    changes: Changes = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Write the results here instead of into the recipe's output_dir.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="URL", help="Publish the adapter on the server at this URL.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="ROOTSTOCK_ADMIN_KEY", help="The server's admin key for --push, sent as a bearer token."
        ),
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(
            help="Sign the adapter for --push with the private key in this file.", exists=True, dir_okay=False
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Keep the adapter even if it scores below its baseline: the head alone or, for generated text, "
            "the foundation with examples in its prompt.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print what would be trained; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and pack one adapter.

    Labelled rows need no recipe: the command chooses the task, the columns and the split, and says so.

    The output folder, by default runs/NAME, gets the report, the metrics, bundle/ and NAME.zip. After a kill the
    same command resumes the run after its last finished epoch.
    """
    with failures():
        source = read_recipe(recipe, changes)
        if push:
            _require_licence(source)
        if dry_run:
            _check(source, recipe, push, as_json)
            return
        with progress(source.recipe.name) as report:
            from rootstock.training.run import run as train

            outcome = train(source, output_dir, report, force)
        published = _push(outcome, push, key, sign_key) if push else None
    if as_json:
        typer.echo(json.dumps(_summary(outcome, published), ensure_ascii=False))
    else:
        _print(outcome, published, push)


@app.command(epilog=examples_of("validate"))
def validate(
    recipe: RecipePath,
    changes: Changes = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Also check the recipe against the limits of this server.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a recipe, its data and its split without training.

    The command prints what would be trained.
    """
    with failures():
        _check(read_recipe(recipe, changes), recipe, server, as_json)


@app.command(epilog=examples_of("schema"))
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and programs."""
    from rootstock.training.recipe.recipe import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2))


def _check(source: RecipeFile, path: Path, server: str | None, as_json: bool) -> None:
    from rootstock.adapters.foundation.location import locate
    from rootstock.training.data.dataset import read_dataset
    from rootstock.training.data.split import split
    from rootstock.training.server_limits import check_limits

    recipe = source.recipe
    if recipe.generates:
        _check_generation(source, path, server, as_json)
        return
    dataset = read_dataset(source)
    parts = split(dataset, recipe.data.splits, recipe.data.conflicts)
    files = locate(recipe.base_model)
    if server is not None:
        check_limits(recipe, str(path), files, server)
    sizes = ", ".join(f"{count} {name}" for name, count in parts.sizes.items())
    summary = {
        "valid": True, "foundation": files.name, "rows": parts.sizes, "duplicates": parts.duplicates,
        "labels": list(dataset.labels), "method": recipe.peft.method,
    }  # fmt: skip
    show(
        summary,
        as_json,
        f"{path}: valid",
        f"  foundation  {files.name}",
        f"  data        {dataset.train.path}: {sizes}; {parts.duplicates} duplicates left out",
        f"  labels      {', '.join(dataset.labels)}",
        f"  method      {recipe.peft.method}",
    )


def _check_generation(source: RecipeFile, path: Path, server: str | None, as_json: bool) -> None:
    from rootstock.training.fit.generation_job import prepare_generation
    from rootstock.training.server_limits import check_limits

    job = prepare_generation(source)
    files, pair = job.network.files, job.parts.train[0]
    if server is not None:
        check_limits(source.recipe, str(path), files, server)
    sizes = ", ".join(f"{count} {name}" for name, count in job.parts.sizes.items())
    tokens, longest = sum(map(len, job.train)), max(row.context for row in job.train)
    summary = {
        "valid": True, "foundation": files.name, "rows": job.parts.sizes, "duplicates": job.parts.duplicates,
        "too_long": job.too_long, "longest": longest, "tokens": tokens,
        "method": source.recipe.peft.method, "prompt": job.encoder.text(pair.messages, pair.where),
        "answer": pair.answer,
    }  # fmt: skip
    show(
        summary,
        as_json,
        f"{path}: valid",
        f"  foundation  {files.name}",
        f"  data        {pair.path}: {sizes}; {job.parts.duplicates} duplicates left out",
        f"  tokens      {tokens} to train on, {longest} in the longest row; {job.too_long} longer rows left out",
        f"  method      {source.recipe.peft.method}",
        "  prompt",
        *(f"    | {line}" for line in str(summary["prompt"]).splitlines()),
        "  answer",
        *(f"    | {line}" for line in pair.answer.splitlines()),
    )


def _require_licence(source: RecipeFile) -> None:
    from rootstock.training.errors import RecipeError

    if source.recipe.license is None:
        raise RecipeError(
            f"{source.path}: license: this key is missing, and --push publishes the adapter; state its "
            "licence, for example license=cc-by-4.0, or leave out --push"
        )


def _push(outcome: RunResult, url: str, key: str | None, sign_key: Path | None) -> dict[str, Any]:
    from rootstock.adapters.client.client import Client

    with Client(url, key) as client:
        return dict(client.push(outcome.results.zip, outcome.metrics["name"], sign_key=sign_key).document)


def _summary(outcome: RunResult, published: dict[str, Any] | None) -> dict[str, Any]:
    paths = {"bundle": str(outcome.results.bundle), "zip": str(outcome.results.zip)}
    summary = {**outcome.metrics, **paths, "publish": _publish_line(outcome)}
    return summary if published is None else {**summary, "published": published}


def _publish_line(outcome: RunResult) -> str:
    return f"rootstock adapters push {outcome.results.zip} --name {outcome.metrics['name']}"


def _print(outcome: RunResult, published: dict[str, Any] | None, url: str | None) -> None:
    metrics, results = outcome.metrics, outcome.results
    test = metrics["test"]
    models = {f"this adapter ({metrics['method']})": test["adapter"], **test["baselines"]}
    columns = [k for k, v in test["adapter"].items() if isinstance(v, float)]
    show_table(
        f"{metrics['name']}: {test['adapter']['rows']} held-out rows",
        ["", *columns],
        [{"": name.replace("_", " "), **figures} for name, figures in models.items()],
    )
    typer.echo(f"method   {metrics['choice']['reason']}")
    typer.echo(f"recipe   {results.folder / 'recipe.yaml'}")
    typer.echo(f"report   {results.report}")
    typer.echo(f"zip      {results.zip} ({results.zip.stat().st_size / 1e6:.2f} MB)")
    typer.echo(f"digest   {outcome.digest}")
    if published is None:
        typer.echo(f"publish  {_publish_line(outcome)}")
        return
    from rootstock.adapters.cli.output import compared

    verified = published.get("verification") or {}
    typer.echo(f"serves   {published['name']}@{published['version']}: {compared(verified)}")
    typer.echo(f"try      {_curl(str(url), published['name'], metrics['task'])}")


def _curl(url: str, name: str, task: str) -> str:
    """Return a command that sends one input to an adapter."""
    modality = task_named(task).modality
    if modality != "text":
        return f"curl -s {url}/v1/predict -F {modality}=@FILE -F model={name}"
    route, fields = _request(task)
    body = json.dumps({"model": name, **fields})
    return f"curl -s {url}/v1/{route} -H 'Content-Type: application/json' -d '{body}'"


def _request(task: str) -> tuple[str, dict[str, Any]]:
    """Return the route that serves a task, and the fields of a request to it."""
    from rootstock.adapters.spec import TEXT2TEXT_GENERATION, TEXT_GENERATION

    if task == TEXT_GENERATION:
        return "chat/completions", {"messages": [{"role": "user", "content": "..."}]}
    return ("completions", {"prompt": "..."}) if task == TEXT2TEXT_GENERATION else ("predict", {"inputs": "..."})


for command in (
    init,
    audit,
    rank_base,
    cv,
    sweep,
    evaluate,
    compare,
    explain,
    suggest,
    federate,
    export,
    bench,
    study,
):
    title = command.__name__.replace("_", "-")
    app.command(title, epilog=examples_of(title))(command)

"""`rootstock train` commands that train many times: cv, sweep, federate, bench, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def cv(
    recipe: RecipePath,
    changes: Changes = None,
    folds: Annotated[int, typer.Option(min=2, help="The number of folds.")] = 5,
    as_json: Json = False,
) -> None:
    """Cross-validate a recipe's method and the head alone.

    The figures are mean and deviation over stratified folds, with the whole change of the adapter; a run may keep
    a part of it (`peft.choose_strength`).
    """
    with failures():
        from rootstock.training.study.cross_validation import cross_validate

        source = read_recipe(recipe, changes)
        with progress(source.recipe.name) as report:
            scores = cross_validate(source, folds, report).to_json()
    lines = [f"{name}: {m['mean']:.4f} ± {m['sd']:.4f}" for name, m in scores["methods"].items()]
    if (paired := scores["paired"]) is not None:
        lines.append(f"p {paired['p_value']:.3g} ({paired['test']})")
    show(scores, as_json, *lines)


def sweep(
    recipe: RecipePath,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe with the best values to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Search the recipe's hpo.space for the best values.

    The validation rows judge them, with the whole change of the adapter; a run may keep a part of it
    (`peft.choose_strength`).
    """
    with failures():
        from rootstock.training.study.search import SearchTrial
        from rootstock.training.study.search import sweep as search

        def observe(trial: SearchTrial, count: int) -> None:
            score = "diverged" if trial.score is None else f"{trial.score:.4f}"
            typer.echo(f"trial {trial.number} of {count}: {score} {trial.values}", err=True)

        result = search(read_recipe(recipe, changes), observe)
        if out is not None:
            out.write_text(result.source.to_yaml(), encoding="utf-8")
    summary = {"best": vars(result.best), "trials": [vars(trial) for trial in result.trials]}
    settings = " ".join(f"{key}={value}" for key, value in result.best.values.items())
    show(summary, as_json, f"best {result.best.score:.4f} in trial {result.best.number}: {settings}")


def federate(
    recipe: RecipePath,
    changes: Changes = None,
    clients: Annotated[int, typer.Option(min=2, help="The number of simulated clients.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="The number of rounds of local training and averaging.")] = 5,
    skew: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Dirichlet skew of the labels over clients: a small one gives each few labels. Default: even.",
        ),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Write the results here instead of into the recipe's output_dir.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train with simulated clients that share no rows.

    FedAvg averages LoRA's products B·A.
    """
    with failures():
        from rootstock.training.study.federated_run import run_federated

        source = read_recipe(recipe, changes)
        with progress(source.recipe.name) as report:
            outcome, history = run_federated(source, clients, rounds, skew, output_dir, report)
    rows = [vars(one) for one in history]
    if as_json:
        show({"rounds": rows, "digest": outcome.digest, "zip": str(outcome.results.zip)}, True)
        return
    show_table("rounds", ["number", "validation", "lost"], rows)
    typer.echo(f"zip      {outcome.results.zip}")
    typer.echo(f"digest   {outcome.digest}")


SetFitPython = Annotated[
    Path | None,
    typer.Option(
        help="The Python of an environment that has SetFit, to compare with it on the same rows.",
        metavar="PATH",
    ),
]


def study(
    recipes: Annotated[list[Path], typer.Argument(help="The recipes, one a data set.", metavar="RECIPE...")],
    rows: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Rows of each label to draw; repeat it for several. Default: all rows."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="The number of draws of each number of rows.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="A file of JSON lines: add each result, and skip those that it has.")
    ] = None,
    setfit_python: SetFitPython = None,
    as_json: Json = False,
) -> None:
    """Measure `auto`, the head alone and SetFit over data sets.

    The score is accuracy on the test rows, for tokens the F1 of whole entities. Wins counts the draws on which
    `auto` is better than, equal to and worse than the head alone.
    """
    import json

    with failures():
        from rootstock.training.study.methods.method_study import cases, markdown, measure
        from rootstock.training.study.methods.setfit_peer import check_setfit

        sources = [read_recipe(path, None) for path in recipes]
        if setfit_python is not None:
            for source in sources:
                check_setfit(setfit_python, source)
        kept = out.read_text(encoding="utf-8").splitlines() if out is not None and out.exists() else []
        records = [json.loads(line) for line in kept]
        done = {(record["set"], record["rows"], record["draw"]) for record in records}
        for case in cases(sources, rows or [None], draws):
            name = case.source.recipe.name
            if (name, case.rows, case.draw) in done:
                continue
            with progress(f"{name}, {case.rows or 'all'} rows, draw {case.draw}") as report:
                records.append(measure(case, setfit_python, report))
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(records[-1]) + "\n")
    show({"records": records}, as_json, markdown(records))


def _bench_setfit(recipe: Path, changes: list[str] | None, python: Path, as_json: bool) -> None:
    with failures():
        from rootstock.training.study.methods.method_study import METHODS, StudyCase, measure

        source = read_recipe(recipe, changes)
        splits = source.recipe.data.splits
        with progress(source.recipe.name) as report:
            record = measure(StudyCase(source, splits.k_shot, splits.seed), python, report)
    sides = [(name, record[name]) for name in METHODS if "seconds" in record.get(name, {})]
    lines = [f"{name}: score {side['score']:.4f} in {side['seconds'] / 60:.1f} minutes" for name, side in sides]
    show(record, as_json, *lines, f"auto kept {record['auto']['kept']}")


def bench(
    recipe: RecipePath,
    changes: Changes = None,
    pairs: Annotated[
        int,
        typer.Option(
            min=1, help="The number of interleaved pairs of trainings; fewer than 6 give no 95 % interval."
        ),
    ] = 6,
    setfit_python: SetFitPython = None,
    as_json: Json = False,
) -> None:
    """Compare speed and score with Trainer or SetFit.

    The Trainer of transformers trains PEFT's adapter by the same recipe. SetFit trains on the same rows by
    its own settings for few rows, and `auto` chooses on them; the score is accuracy on the test rows.
    """
    if setfit_python is not None:
        _bench_setfit(recipe, changes, setfit_python, as_json)
        return
    with failures():
        from rootstock.training.study.bench import compare_trainers

        def observe(done: int, total: int) -> None:
            typer.echo(f"pair {done} of {total}", err=True)

        comparison = compare_trainers(read_recipe(recipe, changes), pairs, observe).to_json()
    lines = [
        f"{side}: {comparison[side]['examples_s']:.1f} examples/s, score {comparison[side]['score']:.4f}"
        for side in ("ours", "trainer")
    ]
    low, high = comparison["interval"]
    interval = f"{low:.2f} to {high:.2f} with {comparison['coverage']:.1%} confidence"
    show(comparison, as_json, *lines, f"ratio {comparison['ratio']:.2f} ({interval})")

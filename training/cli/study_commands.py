"""`rootstock train` commands that train many times: cv, sweep, federate, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.training.cli.options import Changes, Json, RecipePath, failures, progress, show_table, tell


def cv(
    recipe: RecipePath,
    changes: Changes = None,
    folds: Annotated[int, typer.Option(min=2, help="How many.")] = 5,
    as_json: Json = False,
) -> None:
    """Cross-validate a recipe's method and the head alone: mean and deviation over stratified folds.

    Example: `rootstock train cv my.yaml --folds 10`
    """
    with failures():
        from rootstock.training.recipe.recipe_file import load_recipe
        from rootstock.training.study.cross_validation import cross_validate

        source = load_recipe(recipe, changes or ())
        with progress(source.recipe.name) as report:
            found = cross_validate(source, folds, report).to_json()
    lines = [f"{name}: {m['mean']:.4f} ± {m['sd']:.4f}" for name, m in found["methods"].items()]
    if found["paired"] is not None:
        lines.append(f"p {found['paired']['p_value']:.3g} ({found['paired']['test']})")
    tell(found, as_json, *lines)


def sweep(
    recipe: RecipePath,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe with the best values here.")] = None,
    as_json: Json = False,
) -> None:
    """Search the space that a recipe's `hpo` names, judged on validation rows.

    Example: `rootstock train sweep my.yaml hpo.trials=30 --out best.yaml`
    """
    with failures():
        from rootstock.training.recipe.recipe_file import load_recipe
        from rootstock.training.study.search import SearchTrial
        from rootstock.training.study.search import sweep as search

        def told(trial: SearchTrial, count: int) -> None:
            score = "diverged" if trial.score is None else f"{trial.score:.4f}"
            typer.echo(f"trial {trial.number} of {count}: {score} {trial.values}", err=True)

        found = search(load_recipe(recipe, changes or ()), told)
        if out is not None:
            out.write_text(found.source.to_yaml(), encoding="utf-8")
    told_all = {"best": vars(found.best), "trials": [vars(trial) for trial in found.trials]}
    settings = " ".join(f"{key}={value}" for key, value in found.best.values.items())
    tell(told_all, as_json, f"best {found.best.score:.4f} in trial {found.best.number}: {settings}")


def federate(
    recipe: RecipePath,
    changes: Changes = None,
    clients: Annotated[int, typer.Option(min=2, help="Simulated clients.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of local training and averaging.")] = 5,
    skew: Annotated[
        float | None, typer.Option(min=0.01, help="Dirichlet skew of labels over clients; absent: even.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where the results go.")] = None,
    as_json: Json = False,
) -> None:
    """Train by simulated clients whose rows stay apart: FedAvg over the products of LoRA.

    Example: `rootstock train federate my.yaml --clients 8 --rounds 10 --skew 0.5`
    """
    with failures():
        from rootstock.training.recipe.recipe_file import load_recipe
        from rootstock.training.study.federated_run import run_federated

        source = load_recipe(recipe, changes or ())
        with progress(source.recipe.name) as report:
            outcome, found = run_federated(source, clients, rounds, skew, output_dir, report)
    rows = [vars(one) for one in found]
    if as_json:
        tell({"rounds": rows, "digest": outcome.digest, "zip": str(outcome.results.zip)}, True)
        return
    show_table("by round", ["number", "validation", "lost"], rows)
    typer.echo(f"zip      {outcome.results.zip}")
    typer.echo(f"digest   {outcome.digest}")


def bench(
    recipe: RecipePath,
    changes: Changes = None,
    pairs: Annotated[int, typer.Option(min=1, help="Interleaved pairs of trainings.")] = 5,
    as_json: Json = False,
) -> None:
    """Compare examples/s and the score reached with PEFT and transformers' Trainer on the same recipe.

    Example: `rootstock train bench training/recipes/clinc150-home.yaml peft.layers_to_transform=[4,5]`
    """
    with failures():
        from rootstock.training.recipe.recipe_file import load_recipe
        from rootstock.training.study.bench import compare_trainers

        def told(done: int, total: int) -> None:
            typer.echo(f"pair {done} of {total}", err=True)

        found = compare_trainers(load_recipe(recipe, changes or ()), pairs, told).to_json()
    lines = [
        f"{side}: {found[side]['examples_s']:.1f} examples/s, score {found[side]['score']:.4f}"
        for side in ("ours", "trainer")
    ]
    low, high = found["interval"]
    tell(found, as_json, *lines, f"ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f})")

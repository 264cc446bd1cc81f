"""`rootstock train` commands about data: audit, rank-base, suggest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.training.cli.options import (
    BundlePath,
    Changes,
    Foundation,
    Json,
    RecipePath,
    failures,
    read_recipe,
    show,
    show_table,
)


def audit(
    recipe: RecipePath,
    changes: Changes = None,
    noise: Annotated[
        bool,
        typer.Option(help="Also find labels that look wrong, by cross-validating a head; takes some seconds."),
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if there are findings.")] = False,
    as_json: Json = False,
) -> None:
    """Check a recipe's data for mistakes.

    The checks find duplicates, leaks between splits, labels that look wrong, imbalance and cut texts.
    """
    with failures():
        from rootstock.training.study.audit_run import audit_recipe

        findings = audit_recipe(read_recipe(recipe, changes), noise)
    places = [f"{f.file}, line {f.line}" if f.line else f.file for f in findings]
    lines = [f"{f.severity:8} {f.kind}: {at}: {f.message}" for f, at in zip(findings, places, strict=True)]
    show({"findings": [f.to_json() for f in findings]}, as_json, *(lines or ["no findings"]))
    if strict and findings:
        raise typer.Exit(1)


def rank_base(
    recipe: RecipePath,
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="A foundation to rank: default, a folder or org/name@commit. Repeatable. Default: the recipe's."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank foundations and their layers for a recipe's data.

    LogME and H-score stand beside the score of a measured head.
    """
    with failures():
        from rootstock.training.study.base_ranking import rank_bases

        source = read_recipe(recipe, None)

        def observe(base_model: str, layer: int) -> None:
            typer.echo(f"{base_model}: layer {layer}", err=True)

        ranks = rank_bases(source, base or [source.recipe.base_model], observe)
        ranked = [rank.to_json() for rank in ranks]
    if as_json:
        show({"ranked": ranked}, True)
    else:
        show_table("ranked by a head on each layer's output", list(ranked[0]), ranked)


def suggest(
    bundle: BundlePath,
    unlabelled: Annotated[
        Path,
        typer.Argument(
            help="The texts to choose from: .csv, .jsonl or .parquet.", metavar="TEXTS", show_default=False
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="The number of texts to suggest.")] = 20,
    text_column: Annotated[str, typer.Option(help="The column of the text.")] = "text",
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Suggest texts to label next.

    They are those that the adapter is least sure of, and unlike each other.
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.study.assessment import suggest_rows

        rows = suggest_rows(open_predictor(bundle, foundation), unlabelled, text_column, count)
    lines = [f"row {r['row']:>6}  margin {r['margin']:.3f}  {r['label']}: {r['text']}" for r in rows]
    show({"suggested": rows}, as_json, *lines)

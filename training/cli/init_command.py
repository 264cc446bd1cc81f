"""`rootstock train init`: a recipe to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from rootstock.training.cli.options import Changes, Json, chosen, failures, show


def init(
    source: Annotated[
        Path,
        typer.Argument(
            help="Labelled rows (.csv, .jsonl, .parquet, .conll) to make a recipe for, or the recipe to write.",
            metavar="DATA|RECIPE",
            show_default=False,
        ),
    ],
    changes: Changes = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="For DATA: the file to write. Default: DATA with the ending .yaml."),
    ] = None,
    task_type: Annotated[
        Literal[
            "SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM", "image-classification", "audio-classification"
        ]
        | None,
        typer.Option(
            help="SEQ_CLS classifies texts, TOKEN_CLS finds entities, CAUSAL_LM answers chats, SEQ_2_SEQ_LM "
            "rewrites texts, the last two classify images and recordings. Default: by the rows of DATA, else "
            "SEQ_CLS.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe for labelled rows, or one to begin with.

    Its comments state what was chosen, or what the keys of a task mean.
    """
    lines: list[str] = []
    with failures():
        from rootstock.training.errors import RecipeError
        from rootstock.training.proposal.proposal import is_data, propose

        if is_data(source):
            recipe = output or source.with_suffix(".yaml")
            asked = [*(changes or ()), *([f"task_type={task_type}"] if task_type else [])]
            proposal = propose(source, asked)
            task_type = proposal.source.recipe.task_type
            text, lines = proposal.to_yaml(recipe), chosen(proposal)
        elif changes or output:
            raise RecipeError(
                f"{source}: -o and KEY=VALUE are for labelled rows; edit the recipe after it is written"
            )
        else:
            recipe, task_type = source, task_type or "SEQ_CLS"
            example = files("rootstock.training.recipe") / "examples" / f"{task_type}.yaml"
            text = example.read_text(encoding="utf-8")
        try:
            with recipe.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise RecipeError(f"{recipe}: the file exists; choose another name, or remove it") from None
    then = (
        f"run: rootstock train run {recipe}" if lines else f"edit it, then run: rootstock train validate {recipe}"
    )
    show(
        {"recipe": str(recipe), "task_type": task_type},
        as_json,
        *lines,
        f"{recipe}: a recipe for {task_type}; {then}",
    )

"""`rootstock train init`: a recipe to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from rootstock.training.cli.options import Json, failures, show


def init(
    recipe: Annotated[Path, typer.Argument(help="The file to write.", metavar="RECIPE", show_default=False)],
    task_type: Annotated[
        Literal["SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM"],
        typer.Option(
            help="SEQ_CLS classifies texts, TOKEN_CLS finds entities, CAUSAL_LM answers chats, SEQ_2_SEQ_LM "
            "rewrites texts."
        ),
    ] = "SEQ_CLS",
    as_json: Json = False,
) -> None:
    """Write a recipe to begin with: the keys that a task needs, with comments."""
    with failures():
        from rootstock.training.errors import RecipeError

        text = (files("rootstock.training.recipe") / "examples" / f"{task_type}.yaml").read_text(encoding="utf-8")
        try:
            with recipe.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise RecipeError(f"{recipe}: the file exists; choose another name, or remove it") from None
    show(
        {"recipe": str(recipe), "task_type": task_type},
        as_json,
        f"{recipe}: a recipe for {task_type}; edit it, then run: rootstock train validate {recipe}",
    )

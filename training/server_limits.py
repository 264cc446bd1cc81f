"""A recipe held to the limits that a server publishes, before anything is trained."""

from __future__ import annotations

from typing import Any

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint
from rootstock.training.errors import RecipeError
from rootstock.training.network.trunk import TASKS
from rootstock.training.recipe.recipe_file import RecipeFile


def check_limits(source: RecipeFile, files: FoundationFiles, url: str) -> None:
    """RecipeError where the server at `url` would refuse what the recipe makes, ClientError where none is."""
    with Client(url) as client:
        limits: dict[str, Any] = client.limits()
    recipe, where = source.recipe, str(source.path)
    ours, theirs = fingerprint(files.folder), limits["foundation"]["fingerprint"]
    if ours != theirs:
        raise RecipeError(
            f"{where}: base_model: {files.name} is {ours[:19]}…; {url} serves "
            f"{limits['foundation'].get('name')}, {theirs[:19]}…"
        )
    if recipe.peft.method not in ("head_only", "ia3") and recipe.peft.r > limits["max_rank"]:
        raise RecipeError(f"{where}: peft.r: {recipe.peft.r}; {url} serves at most {limits['max_rank']}")
    if (task := TASKS[recipe.task_type]) not in limits["tasks"]:
        raise RecipeError(f"{where}: task_type: {task} is not served by {url}: {', '.join(limits['tasks'])}")

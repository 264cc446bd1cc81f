"""The check of a recipe against the limits that a server publishes, before anything is trained."""

from __future__ import annotations

from rootstock.adapters.client.client import Client
from rootstock.adapters.foundation.location import FoundationFiles, fingerprint
from rootstock.training.errors import RecipeError
from rootstock.training.recipe.recipe import Recipe


def check_limits(recipe: Recipe, origin: str, files: FoundationFiles, url: str) -> None:
    """Raise RecipeError if the server at `url` would refuse the recipe's adapter, ClientError if none answers."""
    with Client(url) as client:
        limits = client.limits()
    ours, theirs = fingerprint(files.folder), limits.get("foundations") or [limits["foundation"]]
    if ours not in {one["fingerprint"] for one in theirs}:
        known = ", ".join(f"{one.get('name')} {one['fingerprint'][:19]}…" for one in theirs)
        raise RecipeError(
            f"{origin}: base_model: {files.name} is {ours[:19]}…; the server {url} has {known}; train on one of "
            "these"
        )
    if recipe.peft.method not in ("head_only", "ia3") and recipe.peft.r > limits["max_rank"]:
        raise RecipeError(
            f"{origin}: peft.r: {recipe.peft.r}; the limit of {url} is {limits['max_rank']}; lower it"
        )
    if (task := recipe.task.name) not in limits["tasks"]:
        raise RecipeError(
            f"{origin}: task_type: {url} does not support {task}; it supports {', '.join(limits['tasks'])}"
        )

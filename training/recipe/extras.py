"""The packages of rootstock[train] that a run needs at its end, asked for at its start."""

from __future__ import annotations

from importlib.util import find_spec

from rootstock.training.errors import MissingExtra
from rootstock.training.recipe.recipe import Recipe


def require(recipe: Recipe) -> None:
    """MissingExtra where a run of the recipe would train first and then fail for want of a package."""
    needed = {"plots": "matplotlib"}
    if recipe.data.group_column is not None:
        needed["figures by group"] = "fairlearn"
    if recipe.tracking.mlflow_tracking_uri is not None:
        needed["MLflow stores"] = "mlflow"
    for what, package in needed.items():
        if find_spec(package) is None:
            raise MissingExtra.of(what, package)

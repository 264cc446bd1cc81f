"""Checks, before a run trains, for the packages of rootstock[train] that it needs at its end."""

from __future__ import annotations

from importlib.util import find_spec

from rootstock.training.errors import MissingExtra
from rootstock.training.recipe.recipe import Recipe


def require(recipe: Recipe) -> None:
    """Raise MissingExtra if a run of the recipe would train and then fail for lack of a package."""
    needed = {"plots": "matplotlib"}
    if recipe.generates:
        needed |= {"ROUGE figures": "rouge_score", "BLEU figures": "sacrebleu"}
    else:
        needed["checks for label noise"] = "cleanlab"
        if recipe.task.modality == "text":
            needed["checks for near copies"] = "datasketch"
    if recipe.task.modality == "image":
        needed["images"] = "PIL"
    if recipe.task.modality == "audio":
        needed["recordings"] = "soundfile"
    if recipe.augmentation.image is not None:
        needed["changes to images"] = "kornia"
    if recipe.data.group_column is not None:
        needed["figures by group"] = "fairlearn"
    if recipe.tracking.mlflow_tracking_uri is not None:
        needed["MLflow stores"] = "mlflow"
    for feature, package in needed.items():
        if find_spec(package) is None:
            raise MissingExtra.of(feature, package)

"""What an adapter was made from: hashes, seeds, library versions and the commit. No time, host or path."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rootstock.training.data.dataset import Dataset
from rootstock.training.data.split import Split
from rootstock.training.recipe.recipe_file import RecipeFile

_LIBRARIES = ("numpy", "peft", "rootstock", "safetensors", "scikit-learn", "tokenizers", "torch", "transformers")
_GIT_SECONDS = 60.0
_CODE = ("adapters", "training")


def provenance(source: RecipeFile, dataset: Dataset, parts: Split) -> dict[str, Any]:
    """The `provenance` of a bundle; the same inputs and installation give the same value."""
    recipe = source.recipe
    found: dict[str, Any] = {
        "recipe_sha256": source.sha256,
        "data_sha256": dataset.hashes,
        "rows": {**parts.sizes, "duplicates": parts.duplicates},
        "seeds": {"split": recipe.data.splits.seed, "training": list(recipe.seeds)},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    commit = _commit(Path(__file__).resolve().parent.parent)
    return found if commit is None else {**found, "commit": commit}


def _commit(root: Path) -> str | None:
    """The commit of this code; None unless it is checked out at `root` and unchanged, so it is never wrong."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["--no-optional-locks", "status", "--porcelain", "--", *_CODE])
    answers = []
    for command in commands:
        try:
            ran = subprocess.run(  # noqa: S603 - fixed arguments
                [git, "-C", str(root), *command],
                capture_output=True,
                text=True,
                check=False,
                timeout=_GIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return None
        if ran.returncode != 0:
            return None
        answers.append(ran.stdout.strip())
    head, changes = answers
    return None if changes else head

"""The provenance of an adapter: hashes, seeds, library versions and the commit. No time, host or path."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("numpy", "peft", "rootstock", "safetensors", "scikit-learn", "tokenizers", "torch", "transformers")
_GIT_SECONDS = 60.0
_CODE = ("adapters", "training")


def provenance(
    recipe_sha256: str,
    data_sha256: Mapping[str, str],
    rows: Mapping[str, int],
    split_seed: int,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return the `provenance` of a bundle; the same inputs and installation give the same value."""
    value: dict[str, Any] = {
        "recipe_sha256": recipe_sha256,
        "data_sha256": dict(data_sha256),
        "rows": dict(rows),
        "seeds": {"split": split_seed, "training": list(seeds)},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    commit = _commit(Path(__file__).resolve().parent.parent)
    return value if commit is None else {**value, "commit": commit}


def _commit(root: Path) -> str | None:
    """Return the commit of this code; None unless it is checked out at `root` without changes."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["--no-optional-locks", "status", "--porcelain", "--", *_CODE])
    answers = []
    for command in commands:
        try:
            process = subprocess.run(  # noqa: S603 - fixed arguments
                [git, "-C", str(root), *command],
                capture_output=True,
                text=True,
                check=False,
                timeout=_GIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return None
        if process.returncode != 0:
            return None
        answers.append(process.stdout.strip())
    head, changes = answers
    return None if changes else head

"""Makes a recipe from a folder of labelled images or recordings."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.training.errors import DataError, RecipeError

# The layers of `vision` that a first adapter changes: the states below are computed once for each row.
_TOP_LAYERS = [8, 9, 10, 11]
_SHARES = {"test_size": 0.2, "val_size": 0.15}


def folder_recipe(folder: Path, asked: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the keys of a recipe for a folder with a subfolder for each label, and the reason for its task.

    Raise DataError if the folder holds neither images nor recordings, RecipeError for recordings if `asked`, the
    caller's keys, name no foundation.
    """
    kind = _kind(folder)
    data: dict[str, Any] = {f"{kind}_folder": folder.name}
    divided = all((folder / part).is_dir() for part in ("train", "test"))
    data["splits"] = {"strategy": "given", "seed": 0} if divided else {**_SHARES, "seed": 0}
    if kind == "audio" and "base_model" not in asked:
        raise RecipeError(
            f"{folder}: base_model: recordings need a foundation of your choice; name a folder or "
            "org/name@revision, such as base_model=./wav2vec2"
        )
    value: dict[str, Any] = {
        "task_type": f"{kind}-classification", "base_model": "vision", "data": data,
    }  # fmt: skip
    if "base_model" not in asked:
        value["peft"] = {"layers_to_transform": _TOP_LAYERS}
    noun = "images" if kind == "image" else "recordings"
    return value, f"the subfolders hold {noun}"


def _kind(folder: Path) -> str:
    """Return `image` or `audio`, by the extension of the first file of either kind in a subfolder."""
    for path in sorted(folder.glob("*/**/*")):
        kind = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
        if kind in ("image", "audio") and path.is_file():
            return kind
    raise DataError(
        f"{folder}: its subfolders hold no images and no recordings; give a folder with a subfolder of files for "
        "each label, or a file of rows"
    )

"""The safetensors files of a saved model: their names, and their tensors' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rootstock.adapters.bundle.plain.extras import MODEL
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.source import json_object

_SUFFIX = ".safetensors"
_ONE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[str]:
    """Return the names of a model's safetensors files, and of their index.

    Raise SourceError if the model has none, and if it names a file of another kind or outside the folder.
    """
    # transformers reads the file that this setting names, and its index may name any file.
    if (folder / MODEL).is_file() and json_object(folder / MODEL).get("transformers_weights") is not None:
        raise SourceError(
            f"{folder / MODEL} names its weights in transformers_weights, which is not read; save the model with "
            "save_pretrained"
        )
    if (folder / _ONE).is_file():
        return [_ONE]
    if (folder / _INDEX).is_file():
        return [_INDEX, *_indexed(folder / _INDEX)]
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if pickled:
        raise SourceError(
            f"{folder} has its weights in {pickled[0].name}, a pickle, which is never read; save the model again "
            "with a newer transformers, which writes model.safetensors"
        )
    raise SourceError(f"{folder} holds no model.safetensors; give the folder that save_pretrained wrote")


def tensor_shapes(folder: Path, names: list[str]) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each tensor in the weight files of a folder, from the headers alone.

    Raise SourceError for a file that is missing or damaged.
    """
    shapes = {}
    for path in (folder / name for name in names if name.endswith(_SUFFIX)):
        try:
            with safe_open(path, "numpy") as file:
                shapes.update({key: tuple(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None
    return shapes


def _indexed(index: Path) -> list[str]:
    """Return the files that an index names; each is a safetensors file beside the index."""
    stated = json_object(index).get("weight_map")
    if not isinstance(stated, dict) or not all(isinstance(name, str) for name in stated.values()):
        raise SourceError(f"{index} holds no object weight_map of file names; save the model again")
    names = sorted(set(stated.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(_SUFFIX):
            raise SourceError(
                f"{index} names {name!r}; only files that lie beside it and end in {_SUFFIX} are read; save the "
                "model again with save_pretrained"
            )
    return names

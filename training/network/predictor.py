"""A finished adapter opened for use here: its bundle's network, tokenizer and labels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.home.offline import open_offline
from rootstock.adapters.spec import Array, FoundationSpec, Rejected
from rootstock.training.data.encoding import TokenRow, load_tokenizer, padding
from rootstock.training.errors import TrainingError
from rootstock.training.network.files import load
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.network import Network, outputs
from rootstock.training.network.trunk import TASKS
from rootstock.training.recipe.recipe import Recipe, TaskType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TASK_TYPES = {task: task_type for task_type, task in TASKS.items()}


@dataclass(frozen=True)
class Predictor:
    """An adapter on its foundation, ready to predict."""

    path: Path
    bundle: Bundle
    files: FoundationFiles
    spec: FoundationSpec
    network: Network
    tokenizer: Tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in id order."""
        return self.bundle.manifest.labels

    @property
    def task_type(self) -> TaskType:
        """What a recipe calls its task."""
        return _TASK_TYPES[self.bundle.manifest.task]

    def inputs(self, rows: Sequence[TokenRow]) -> Inputs:
        """Rows ready to be batched."""
        import torch

        return Inputs(rows, padding(self.files), torch.device("cpu"))

    def predict(self, rows: Sequence[TokenRow]) -> list[Array]:
        """The raw output for each row."""
        return outputs(self.network, self.inputs(rows))


def open_predictor(path: Path, foundation: str) -> Predictor:
    """The adapter of a bundle's zip or folder; TrainingError where it is none, or made for another foundation."""
    files = locate(foundation)
    try:
        spec, bundle, _ = open_offline(path, foundation, ())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from None
    except Rejected as error:
        raise TrainingError(f"{path}: {error}") from None
    manifest = bundle.manifest
    if manifest.task not in _TASK_TYPES:
        raise TrainingError(f"{path}: its task is {manifest.task}; read here: {', '.join(_TASK_TYPES)}")
    recipe = Recipe.model_validate(
        {
            "task_type": _TASK_TYPES[manifest.task], "base_model": foundation, "name": "opened", "license": "-",
            "description": "-", "data": {"path": "-"},
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="rootstock-open-") as scratch:
        for name, content in bundle.files.items():
            (Path(scratch) / name).write_bytes(content)
        network = load(Path(scratch), recipe, len(manifest.labels), files, spec)
    tokenizer = load_tokenizer(files.folder, manifest.preprocessing.max_length)
    return Predictor(path, bundle, files, spec, network, tokenizer)

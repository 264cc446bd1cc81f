"""Opens a finished adapter to predict with it: the network of its bundle, its tokenizer and its labels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rootstock.adapters.bundle import Bundle
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.home.offline import open_offline
from rootstock.adapters.spec import Array, FoundationSpec, Rejected
from rootstock.adapters.tasks import task_named
from rootstock.training.data.encoding import TokenRow
from rootstock.training.errors import TrainingError
from rootstock.training.network.files import load
from rootstock.training.network.network import Network, outputs
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.row_encoder import RowEncoder
from rootstock.training.problems.problem import Problem
from rootstock.training.problems.problem_table import problem_of
from rootstock.training.recipe.recipe import CLASSIFYING, TaskType


@dataclass(frozen=True)
class Predictor:
    """An adapter on its foundation, ready to predict."""

    path: Path
    bundle: Bundle
    spec: FoundationSpec
    network: Network
    encoder: RowEncoder

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in id order."""
        return self.bundle.manifest.labels

    @property
    def problem(self) -> Problem:
        """The problem that the adapter answers."""
        return self.encoder.problem

    @property
    def task_type(self) -> TaskType:
        """The adapter's task, under its name in recipes."""
        return cast(TaskType, task_named(self.bundle.manifest.task).peft_type)

    def predict(self, rows: Sequence[TokenRow]) -> list[Array]:
        """Return the raw output for each row."""
        return outputs(self.network, self.encoder.inputs(rows))


def open_predictor(path: Path, foundation: str) -> Predictor:
    """Open the adapter of a bundle's zip or folder.

    Raise TrainingError for a file that is not a bundle, and for an adapter of another foundation or task.
    """
    import torch

    files = locate(foundation)
    try:
        spec, bundle, _ = open_offline(path, foundation, ())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from None
    except Rejected as error:
        raise TrainingError(f"{path}: {error}") from None
    manifest = bundle.manifest
    if manifest.task not in CLASSIFYING:
        raise TrainingError(
            f"{path}: the adapter's task is {manifest.task}; choose an adapter for {' or '.join(CLASSIFYING)}"
        )
    network_spec = NetworkSpec(files, spec, task_named(manifest.task), len(manifest.labels))
    with tempfile.TemporaryDirectory(prefix="rootstock-open-") as folder:
        for name, content in bundle.files.items():
            (Path(folder) / name).write_bytes(content)
        network = load(Path(folder), network_spec)
    if manifest.preprocessing is None:
        raise ValueError(f"{path}: a bundle for texts without preprocessing")
    problem = problem_of(manifest.problem_type, manifest.labels)
    encoder = RowEncoder.of(files, problem, manifest.preprocessing.max_length, torch.device("cpu"))
    return Predictor(path, bundle, spec, network, encoder)

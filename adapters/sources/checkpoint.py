"""Reads the folder of a whole model that transformers or its Trainer saved."""

from __future__ import annotations

from pathlib import Path

from rootstock.adapters.bundle.labels import config_labels
from rootstock.adapters.bundle.plain.extras import MODEL
from rootstock.adapters.embedding_files import TOKENIZER
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.source import Source, json_object, unread
from rootstock.adapters.sources.weight_files import tensor_shapes, weight_files
from rootstock.adapters.spec import PROBLEM_TYPES

_TOKENIZER_FILES = ("tokenizer.json", TOKENIZER)
# The Trainer's own numbers, and not a limit of the model.
_MOST_TOKENS = 10**6


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds a whole model: a config of transformers, or checkpoints of a Trainer."""
    return (folder / MODEL).is_file() or bool(_steps(folder))


def read_checkpoint(folder: Path) -> Source:
    """Return the model in a folder, with its class, labels and problem type from config.json.

    Raise SourceError for a folder without safetensors weights, or with a damaged file of them.
    """
    if not (folder / MODEL).is_file():
        steps = _steps(folder)
        raise SourceError(
            f"{folder} holds {len(steps)} checkpoints and no model; give one of them, as {steps[-1]}"
        )
    config = json_object(folder / MODEL)
    weights = weight_files(folder)
    classes = config.get("architectures")
    stated = classes[0] if isinstance(classes, list) and classes else None
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else 0
    problem = config.get("problem_type")
    return Source(
        "whole checkpoint",
        folder,
        class_name=stated if isinstance(stated, str) else None,
        shapes=tensor_shapes(folder, weights),
        labels=config_labels((folder / MODEL).read_bytes(), count, "text-classification") or (),
        problem_type=problem if problem in PROBLEM_TYPES else None,
        max_length=token_limit(folder),
        ignored=unread(folder, {MODEL, *_TOKENIZER_FILES, *weights}),
    )


def token_limit(folder: Path) -> int | None:
    """Return the longest text in tokens that a tokenizer's settings state; None if they state none."""
    if not (folder / TOKENIZER).is_file():
        return None
    stated = json_object(folder / TOKENIZER).get("model_max_length")
    # transformers writes 10**30 for no limit.
    return stated if isinstance(stated, int) and 3 <= stated < _MOST_TOKENS else None


def _steps(folder: Path) -> list[Path]:
    """Return the folders of a Trainer's checkpoints that hold whole models, the last step last."""
    steps = [path for path in folder.glob("checkpoint-*") if (path / MODEL).is_file()]
    return sorted(steps, key=lambda path: (len(path.name), path.name))

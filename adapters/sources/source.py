"""Describes a saved model: its kind, its head and its files, read without its weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle.archive import CARD
from rootstock.adapters.embedding_files import StatedEmbedding
from rootstock.adapters.errors import AdapterError, SourceError
from rootstock.adapters.foundation.files import FoundationError
from rootstock.adapters.sources.output_layer import OutputLayer
from rootstock.adapters.spec import Rejected


@dataclass(frozen=True)
class Source:
    """A model that another library saved.

    `kind` names it for people. `folder` holds a whole model's weights; it is None for a head on the foundation's
    own embeddings. `class_name` is the model's Hugging Face class, None if the folder does not state it.
    `embedding` says how the model turns a text into a vector, None for a model of a task's class. `layer` is the
    linear layer on that vector, None for embeddings alone. `shapes` are those of a whole checkpoint's tensors.
    `labels` and `problem_type` come from the files; the labels of a checkpoint are empty if it states none.
    `max_length` is None if no file states it. `ignored` names the files that are not read.
    """

    kind: str
    folder: Path | None = None
    class_name: str | None = None
    embedding: StatedEmbedding | None = None
    layer: OutputLayer | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    problem_type: str | None = None
    max_length: int | None = None
    ignored: tuple[str, ...] = ()

    @property
    def card(self) -> dict[str, bytes]:
        """Return the model card as a bundle's member, if the folder has one."""
        path = None if self.folder is None else self.folder / CARD
        return {CARD: path.read_bytes()} if path is not None and path.is_file() else {}


def unread(folder: Path, read: Collection[str]) -> tuple[str, ...]:
    """Return the files and folders of a model's folder that are not among those that were read, sorted."""
    tops = {path.name + ("/" if path.is_dir() else "") for path in folder.iterdir()}
    return tuple(sorted(tops - {*read, CARD}))


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise SourceError if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds {type(value).__name__}, not an object")
    return value


@contextmanager
def damage(model: Path | str) -> Iterator[None]:
    """Raise SourceError in place of any error that no part of this project raises by design.

    The files of another library's model may hold anything, and each library raises errors of many types for them.
    """
    try:
        yield
    except (AdapterError, FoundationError, Rejected, OSError):
        raise
    except Exception as error:
        raise SourceError(
            f"{model} cannot be converted: {error!r}; a file is damaged or of an unknown form"
        ) from error

"""Reads the folder of a whole model that sentence-transformers saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle.plain.extras import MODEL
from rootstock.adapters.embedding_files import (
    MODULES,
    PROMPTS,
    SENTENCE,
    TOKENIZER,
    StatedEmbedding,
    UnservedEmbedding,
    read_embedding,
)
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.source import Source, unread
from rootstock.adapters.sources.weight_files import weight_files

_READ = (MODULES, PROMPTS, TOKENIZER, "tokenizer.json", MODEL, *SENTENCE)


def is_sentence_transformer(folder: Path) -> bool:
    """Return whether a folder is a model of sentence-transformers."""
    return (folder / MODULES).is_file()


def read_sentence_transformer(folder: Path, lowercases: bool) -> Source:
    """Return the model in a folder; modules.json decides its pooling, normalisation, length and prompt.

    `lowercases` states whether the foundation's tokenizer makes text lower-case. Raise SourceError for a module
    or setting that is not served, and for a folder without safetensors weights.
    """
    stated = read_method(folder, lowercases)
    modules = [module["path"] for module in json.loads((folder / MODULES).read_text(encoding="utf-8"))]
    read = {*_READ, *weight_files(folder), *(f"{path}/" for path in modules if path)}
    return Source(
        "sentence-transformers model",
        folder,
        embedding=stated,
        max_length=stated.max_tokens,
        ignored=unread(folder, read),
    )


def read_method(folder: Path, lowercases: bool) -> StatedEmbedding:
    """Return how a model of sentence-transformers turns a text into a vector; raise SourceError as above."""

    def read(path: str) -> Any:
        file = folder / path
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    try:
        stated = read_embedding(read, lowercases)
    except UnservedEmbedding as error:
        raise SourceError(f"{folder}: {error.where}: {error.with_remedy('choose another model')}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{folder}: a file of sentence-transformers cannot be read: {error}") from None
    if stated is None:
        raise SourceError(f"{folder} holds no {MODULES}; give the folder that sentence-transformers saved")
    return stated

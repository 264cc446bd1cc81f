"""Reads pairs of a prompt and an answer: chats, or rows whose columns fill the recipe's templates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rootstock.adapters.chat_template import Message
from rootstock.training.characters import quoted
from rootstock.training.data.dataset import read_bytes
from rootstock.training.data.example import normalised
from rootstock.training.data.formats.tables import FORMATS, read_table
from rootstock.training.errors import DataError
from rootstock.training.recipe.recipe_file import RecipeFile
from rootstock.training.recipe.template import ColumnTemplate

_ROLES = ("system", "user", "assistant")
_CHATS = (".jsonl", ".parquet")


@dataclass(frozen=True)
class PromptPair:
    """A chat up to the assistant's turn, and the answer to learn; `line` is its line in the file `path`."""

    messages: tuple[Message, ...]
    answer: str
    path: Path
    line: int

    @cached_property
    def key(self) -> str:
        """The prompt without differences of case, spacing and Unicode form; equal prompts have equal keys."""
        return normalised(json.dumps(self.messages, ensure_ascii=False))

    @property
    def where(self) -> str:
        """The file and the line, for messages."""
        return f"{self.path}, line {self.line}"


@dataclass(frozen=True)
class PairRows:
    """The pairs of the files of one part, in their order, and their hash."""

    sha256: str
    pairs: tuple[PromptPair, ...]


@dataclass(frozen=True)
class PairData:
    """The pairs of a recipe's files. A part without a file is split off from `train`."""

    train: PairRows
    validation: PairRows | None = None
    test: PairRows | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each part that has files."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows.sha256 for name, rows in parts.items() if rows is not None}


def read_pairs(source: RecipeFile) -> PairData:
    """Return the pairs that a recipe names. Raise DataError, with file and line, for one that cannot be used."""
    data = source.recipe.data
    train, validation, test = (
        None if path is None else read_pair_rows(source, path, f"data.{key}")
        for key, path in (("path", data.path), ("val_path", data.val_path), ("test_path", data.test_path))
    )
    if train is None:
        raise ValueError("a recipe without data.path")
    return PairData(train, validation, test)


def read_pair_rows(source: RecipeFile, path: str, key: str) -> PairRows:
    """Return the pairs of one path, which may match several files with *; `key` is the recipe's key for it."""
    hashes, pairs = [], []
    for name in _matches(source, path, key):
        file, raw = read_bytes(source, name, key)
        if file.suffix.lower() not in FORMATS:
            raise DataError(
                f"{file}: {source.recipe.task_type} reads {', '.join(FORMATS)} ({key}); convert the file"
            )
        hashes.append(hashlib.sha256(raw).hexdigest())
        read = _chats if source.recipe.data.messages_column else _templated
        pairs += list(read(source, file, raw))
    if not pairs:
        raise DataError(f"{source.resolve(path)}: holds no rows; add at least one")
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return PairRows(f"sha256:{whole}", tuple(pairs))


def _matches(source: RecipeFile, path: str, key: str) -> list[str]:
    if "*" not in path:
        return [path]
    parts = source.resolve(path).parts
    first = next(at for at, part in enumerate(parts) if "*" in part)
    try:
        found = sorted(str(file.absolute()) for file in Path(*parts[:first]).glob("/".join(parts[first:])))
    except ValueError as error:
        raise DataError(f"{source.resolve(path)}: {error} ({source.path}: {key})") from None
    if not found:
        raise DataError(f"{source.resolve(path)}: no file matches ({source.path}: {key})")
    return found


def _templated(source: RecipeFile, file: Path, raw: bytes) -> Iterator[PromptPair]:
    """Yield the pairs of a table whose columns fill the recipe's templates."""
    prompts, folder = source.recipe.prompts, source.recipe.data.folder_column
    prompt, answer = ColumnTemplate(prompts.template), ColumnTemplate(prompts.completion)
    columns = list(dict.fromkeys([*prompt.columns, *answer.columns]))
    own = {folder: file.resolve().parent.name} if folder else {}
    for line, row in read_table(file, raw, [column for column in columns if column not in own]):
        where = f"{file}, line {line}"
        values = {column: _value(where, column, row[column]) for column in row} | own
        texts = [_text(where, name, t.fill(values)) for name, t in (("template", prompt), ("completion", answer))]
        yield PromptPair(({"role": "user", "content": texts[0]},), texts[1], file, line)


def _value(where: str, column: str, value: Any) -> str:
    """Return the text of a column's value: JSON for a value that is no text."""
    if value is None:
        raise DataError(f"{where}: the column {column!r} is empty; a template of prompts needs it")
    if isinstance(value, str):
        return value.strip()
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise DataError(f"{where}: the column {column!r} is {quoted(value)}, which has no JSON form") from None


def _text(where: str, name: str, text: str) -> str:
    if not text.strip():
        raise DataError(f"{where}: prompts.{name} gives an empty text; fill the columns that it names")
    return text.strip()


def _chats(source: RecipeFile, file: Path, raw: bytes) -> Iterator[PromptPair]:
    """Yield the pairs of a table of chats: all messages but the last, and the last one's content."""
    column = str(source.recipe.data.messages_column)
    if file.suffix.lower() not in _CHATS:
        raise DataError(f"{file}: data.messages_column needs {' or '.join(_CHATS)}; convert the file")
    for line, row in read_table(file, raw, [column]):
        messages = _messages(f"{file}, line {line}", column, row[column])
        yield PromptPair(tuple(messages[:-1]), messages[-1]["content"], file, line)


def _messages(where: str, column: str, value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or len(value) < 2:
        raise DataError(f"{where}: {column!r} is {quoted(value)}; expected a list of at least two messages")
    messages = [_message(where, f"{column}[{i}]", one) for i, one in enumerate(value)]
    if (role := messages[-1]["role"]) != "assistant":
        raise DataError(
            f"{where}: {column!r} ends with the role {role!r}; the last message is the answer to learn, so its "
            "role is assistant"
        )
    return messages


def _message(where: str, name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not {"role", "content"} <= set(value):
        raise DataError(f"{where}: {name} is {quoted(value)}; expected an object with role and content")
    role, content = value["role"], value["content"]
    if role not in _ROLES:
        raise DataError(f"{where}: {name}.role is {quoted(role)}; expected one of: {', '.join(_ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"{where}: {name}.content is {quoted(content)}; expected a text that is not empty")
    return {"role": role, "content": content.strip()}


@dataclass(frozen=True)
class PromptGroup:
    """A prompt with every answer that the data has for it: its references."""

    messages: tuple[Message, ...]
    references: tuple[str, ...]


def grouped(pairs: Sequence[PromptPair]) -> list[PromptGroup]:
    """Return the distinct prompts of pairs, in order, each with its distinct answers."""
    groups: dict[str, list[PromptPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.key, []).append(pair)
    return [
        PromptGroup(group[0].messages, tuple(dict.fromkeys(pair.answer for pair in group)))
        for group in groups.values()
    ]

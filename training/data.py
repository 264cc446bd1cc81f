"""Labelled data: CSV rows of text and label, or CoNLL sentences of token and BIO tag."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError
from training.recipe import RecipeFile


@dataclass(frozen=True)
class Example:
    """One labelled input.

    `labels` holds the one label of `text`; for tokens, one BIO tag for each of `words`, which joined by spaces
    are `text`. `line` is where it begins in its file.
    """

    text: str
    labels: tuple[str, ...]
    line: int
    words: tuple[str, ...] = ()

    @property
    def stratum(self) -> str:
        """What a stratified split balances: the label, or the set of entity types in the sentence."""
        return "+".join(sorted(self.kinds)) if self.words else self.labels[0]

    @property
    def kinds(self) -> set[str]:
        """The labels, or the entity types, that this example is an example of."""
        return {tag[2:] for tag in self.labels if tag != "O"} if self.words else set(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The examples of one file, in its order, with its hash and the labels in id order."""

    path: Path
    sha256: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The labels, or the entity types, in id order."""
        return tuple(tag[2:] for tag in self.labels if tag[:2] == "B-") if self.tokens else self.labels

    @property
    def tokens(self) -> bool:
        """Whether labels belong to words rather than to whole texts."""
        return bool(self.examples[0].words)


def read_dataset(source: RecipeFile) -> Dataset:
    """The data that a recipe names; DataError naming the file and line for anything that cannot be learned from.

    Label ids follow the alphabet; for tokens `O` is 0, then `B-` and `I-` of each entity type.
    """
    path, recipe = source.data_path, source.recipe
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror} ({source.path}: data.path)") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    if recipe.task_type == "TOKEN_CLS":
        examples = tuple(_conll(path, text))
        types = sorted({kind for example in examples for kind in example.kinds})
        labels: tuple[str, ...] = ("O", *(f"{bio}-{kind}" for kind in types for bio in "BI"))
    else:
        examples = tuple(_csv(path, text, recipe.data.text_column, recipe.data.label_column))
        labels = tuple(sorted({example.labels[0] for example in examples}))
    if not examples:
        raise DataError(f"{path}: holds no rows")
    if len(labels) < 2:
        raise DataError(f"{path}: every row is {labels[0]!r}; a classifier needs at least two labels")
    return Dataset(path, "sha256:" + hashlib.sha256(raw).hexdigest(), labels, examples)


def _csv(path: Path, text: str, text_column: str, label_column: str) -> Iterator[Example]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        for column in (text_column, label_column):
            if header.count(column) != 1:
                found = ", ".join(map(repr, header)) or "nothing"
                raise DataError(f"{path}, line 1: needs one column {column!r}; found: {found}")
        at, end = (header.index(text_column), header.index(label_column)), reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{path}, line {line}: {len(row)} cells; the header has {len(header)}")
            content, label = (row[i].strip() for i in at)
            if not content:
                raise DataError(f"{path}, line {line}: the text ({text_column!r}) is empty")
            if not label:
                raise DataError(f"{path}, line {line}: the label ({label_column!r}) is empty")
            yield Example(content, (label,), line)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _conll(path: Path, text: str) -> Iterator[Example]:
    words: list[str] = []
    tags: list[str] = []
    for line, content in enumerate([*text.split("\n"), ""], start=1):
        if content.strip():
            word, tag = _word(path, line, content.rstrip("\r"))
            kind = tag[2:]
            if tag[0] == "I" and (not tags or tags[-1] not in (f"B-{kind}", tag)):
                raise DataError(f"{path}, line {line}: {tag} follows no B-{kind}; an entity begins with B-")
            words.append(word)
            tags.append(tag)
        elif words:
            yield Example(" ".join(words), tuple(tags), line - len(words), tuple(words))
            words, tags = [], []


def _word(path: Path, line: int, content: str) -> tuple[str, str]:
    cells = content.split("\t")
    if len(cells) != 2 or not cells[0].strip() or cells[0] != cells[0].strip():
        raise DataError(f"{path}, line {line}: {content!r} is not a token, one tab and a tag")
    word, tag = cells
    if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:].strip() == tag[2:] != ""):
        raise DataError(f"{path}, line {line}: {tag!r} is not a BIO tag: O, B-TYPE or I-TYPE")
    return word, tag

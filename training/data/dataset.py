"""Reads and checks the labelled data that a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rootstock.training.characters import quoted
from rootstock.training.data.answers.answer_columns import answer_columns
from rootstock.training.data.example import Example, Rows
from rootstock.training.data.formats.characters import decoded
from rootstock.training.data.formats.conll import TaggedSentence, read_conll, tags_of
from rootstock.training.data.formats.label_value import check_forms
from rootstock.training.data.formats.tables import FORMATS, read_table
from rootstock.training.data.formats.tag_scheme import check_tag, scheme_of
from rootstock.training.data.media.media_rows import read_folder, read_table_of_files
from rootstock.training.errors import DataError, RecipeError
from rootstock.training.recipe.problem_keys import REGRESSION, SINGLE
from rootstock.training.recipe.recipe_file import RecipeFile


@dataclass(frozen=True)
class Dataset:
    """The rows of a recipe's files, and the labels in id order; of numbers the name of their column.

    A part without a file is split off from `train`.
    """

    labels: tuple[str, ...]
    train: Rows
    validation: Rows | None = None
    test: Rows | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The labels, or the entity types, in id order; none of numbers."""
        if self.train.examples[0].value is not None:
            return ()
        return tuple(tag[2:] for tag in self.labels if tag[:2] == "B-") if self.tokens else self.labels

    @property
    def tokens(self) -> bool:
        """True if each label belongs to a word, False if it belongs to a whole text."""
        return bool(self.train.examples[0].words)

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each file, by its part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows.sha256 for name, rows in parts.items() if rows is not None}


def require_classifier(source: RecipeFile) -> None:
    """Raise RecipeError unless the recipe trains a classifier."""
    if source.recipe.generates:
        raise RecipeError(
            f"{source.path}: task_type: this command is for classifiers; {source.recipe.task_type} has run, "
            "validate and evaluate"
        )


def require_texts(source: RecipeFile) -> None:
    """Raise RecipeError unless the recipe trains a classifier that gives each text, or word, one label."""
    require_classes(source)
    if source.recipe.task.modality != "text":
        raise RecipeError(
            f"{source.path}: task_type: this command is for texts; {source.recipe.task_type} has run, validate, "
            "audit, cv, sweep, federate and rank-base"
        )


def require_classes(source: RecipeFile) -> None:
    """Raise RecipeError unless the recipe trains a classifier that gives each input, or word, one label."""
    require_classifier(source)
    if source.recipe.problem_type not in (None, SINGLE):
        raise RecipeError(
            f"{source.path}: problem_type: this command is for one label an input; {source.recipe.problem_type} "
            "has run, validate, audit, cv, sweep, evaluate and compare"
        )


def read_dataset(source: RecipeFile) -> Dataset:
    """Return the data that a recipe names.

    Raise DataError, with file and line, for data that a classifier cannot learn from. Label ids are in
    alphabetical order; for tokens `O` is 0, then come `B-` and `I-` of each entity type.
    """
    require_classifier(source)
    train, others = _parts(source)
    check_forms([train, *others.values()])
    dataset = Dataset(_label_names(source, train), train, **others)
    for rows in others.values():
        _check_known(rows, dataset)
    return dataset


def _label_names(source: RecipeFile, train: Rows) -> tuple[str, ...]:
    """Return the labels in id order; of numbers the name of their column. Raise DataError for too few."""
    if source.recipe.problem_type == REGRESSION:
        if len({example.value for example in train.examples}) < 2:
            raise DataError(
                f"{train.path}: every number is {train.examples[0].answer}; a regression needs rows with "
                "different numbers"
            )
        return (source.recipe.data.label_column,)
    if source.recipe.task_type == "TOKEN_CLS":
        labels = tags_of(train.examples)
    else:
        labels = tuple(sorted({label for example in train.examples for label in example.labels}))
    if unused := set(source.recipe.data.label_columns or ()) - set(labels):
        raise DataError(
            f"{train.path}: no row has 1 in the column {min(unused)!r} (data.label_columns); add rows with it, "
            "or remove it"
        )
    if len(labels) < 2:
        known = f"every label is {labels[0]!r}" if labels else "no row has a label"
        raise DataError(f"{train.path}: {known}; a classifier needs at least two labels")
    return labels


def _parts(source: RecipeFile) -> tuple[Rows, dict[str, Rows]]:
    """Return the rows to train on, and those of the parts that have separate files or folders."""
    recipe, data = source.recipe, source.recipe.data
    if data.folder is not None:
        key = "data.image_folder" if data.image_folder else "data.audio_folder"
        parts = read_folder(source.resolve(data.folder), data, recipe.task.modality, f"{source.path}: {key}")
    else:
        keys = {"train": "path", "validation": "val_path", "test": "test_path"}
        parts = {
            part: read_rows(source, path, f"data.{key}")
            for part, key in keys.items()
            if (path := getattr(data, key)) is not None
        }
    return parts.pop("train"), parts


def read_rows(source: RecipeFile, path: str, key: str) -> Rows:
    """Return the labelled examples of one file; `key` is the recipe's key for it."""
    file, raw = read_bytes(source, path, key)
    modality = source.recipe.task.modality
    if file.suffix.lower() not in FORMATS:
        if source.recipe.task_type != "TOKEN_CLS":
            raise _format(source, file, key, FORMATS)
        return _tagged(file, raw, read_conll(file, decoded(file, raw)))
    elif modality != "text":
        return read_table_of_files(file, raw, source.recipe.data, modality)
    elif source.recipe.task_type == "TOKEN_CLS":
        if file.suffix.lower() == ".csv":
            raise _format(source, file, key, (".conll", ".jsonl", ".parquet"))
        return _tagged(file, raw, _tokens(source, file, raw))
    else:
        examples = tuple(_texts(source, file, raw))
    return _rows(file, raw, examples)


def _rows(file: Path, raw: bytes, examples: tuple[Example, ...], tag_scheme: str = "") -> Rows:
    if not examples:
        raise DataError(f"{file}: holds no rows; add at least one")
    return Rows(file, "sha256:" + hashlib.sha256(raw).hexdigest(), examples, tag_scheme)


def _tagged(file: Path, raw: bytes, sentences: Iterable[TaggedSentence]) -> Rows:
    """Return the rows of tagged sentences, whose tags become BIO."""
    read = tuple(sentences)
    return _rows(
        file, raw, tuple(one.as_example() for one in read), scheme_of(sentence.tags for sentence in read)
    )


def read_texts(source: RecipeFile, path: str, key: str) -> list[str]:
    """Return the texts of one file without its labels: out-of-scope or unlabelled target rows."""
    file, raw = read_bytes(source, path, key)
    if file.suffix.lower() not in FORMATS:
        raise _format(source, file, key, FORMATS)
    column = source.recipe.data.text_column
    texts = [_text(file, line, row, column) for line, row in read_table(file, raw, (column,))]
    if not texts:
        raise DataError(f"{file}: holds no rows")
    return texts


def read_bytes(source: RecipeFile, path: str, key: str) -> tuple[Path, bytes]:
    """Return the file that a recipe's key names, and its content."""
    file = source.resolve(path)
    try:
        return file, file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{file}: cannot be read: {reason} ({source.path}: {key})") from None


def _format(source: RecipeFile, file: Path, key: str, formats: Sequence[str]) -> DataError:
    unreadable = f"{file.suffix} files" if file.suffix else "files without an extension"
    return DataError(
        f"{file}: {source.recipe.task_type} does not read {unreadable} ({key}); use {' or '.join(formats)}"
    )


def _texts(source: RecipeFile, file: Path, raw: bytes) -> Iterator[Example]:
    data = source.recipe.data
    answers = answer_columns(source.recipe)
    columns = [data.text_column, *answers.names, *filter(None, (data.pair_column, data.group_column))]
    for line, row in read_table(file, raw, columns):
        text = _text(file, line, row, data.text_column)
        pair = _text(file, line, row, data.pair_column) if data.pair_column else None
        answer = answers.read(f"{file}, line {line}", row)
        yield replace(answer, text=text, line=line, pair=pair, group=_group(row, data.group_column))


def _tokens(source: RecipeFile, file: Path, raw: bytes) -> Iterator[TaggedSentence]:
    data = source.recipe.data
    columns = [data.token_column, data.label_column, *filter(None, (data.group_column,))]
    for line, row in read_table(file, raw, columns):
        words, tags = row[data.token_column], row[data.label_column]
        where = f"{file}, line {line}"
        for column, value in ((data.token_column, words), (data.label_column, tags)):
            if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() == v != "" for v in value):
                raise DataError(
                    f"{where}: {column!r} is {quoted(value)}; expected a list of words, none empty and none with "
                    "spaces at its ends"
                )
        if len(words) != len(tags) or not words:
            raise DataError(f"{where}: {len(words)} words and {len(tags)} tags; expected one tag for each word")
        for tag in tags:
            check_tag(where, tag)
        yield TaggedSentence(tuple(words), tuple(tags), line, _group(row, data.group_column))


def _text(file: Path, line: int, row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise DataError(f"{file}, line {line}: the text ({column!r}) is {quoted(value)}, not text")
    if value is None or not value.strip():
        raise DataError(f"{file}, line {line}: the text ({column!r}) is empty")
    return value.strip()


def _group(row: Mapping[str, Any], column: str | None) -> str | None:
    if column is None:
        return None
    return "" if row[column] is None else str(row[column])


def _check_known(rows: Rows, dataset: Dataset) -> None:
    """Raise DataError for a label of validation or test that no training row has: no head can predict it."""
    known = set(dataset.kinds)
    for example in rows.examples:
        if unknown := sorted(example.kinds - known):
            where = example.file or f"{rows.path}, line {example.line}"
            raise DataError(
                f"{where}: label {quoted(unknown[0])} is not in {dataset.train.path}; "
                f"correct it, or add training rows with it; known labels: {', '.join(dataset.kinds[:20])}"
            )

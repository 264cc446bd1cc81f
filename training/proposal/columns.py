"""Finds the task of a labelled file and its columns, by their names and values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.training.characters import quoted
from rootstock.training.data.formats.tables import column_names, read_table
from rootstock.training.data.formats.tag_scheme import is_tag
from rootstock.training.errors import DataError
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION, ProblemType
from rootstock.training.recipe.recipe import TaskType

# Common names of columns, the clearest first.
_TEXTS = (
    "text", "sentence", "utterance", "message", "review", "comment", "query", "question", "content", "body",
    "input", "prompt", "document", "title",
)  # fmt: skip
_LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "intent",
    "sentiment",
    "topic",
    "target",
    "emotion",
    "tag",
    "type",
)
_NUMBERS = ("score", "rating", "stars", "value", "number")
_PROMPTS = ("prompt", "instruction", "question", "input", "query", "source")
_ANSWERS = ("completion", "response", "answer", "output", "reply", "target")
_KNOWN = {*_TEXTS, *_LABELS, *_NUMBERS, *_PROMPTS, *_ANSWERS}
_MESSAGE = {"role", "content"}


@dataclass(frozen=True)
class ColumnChoice:
    """The task type of a file, the keys of a recipe for its columns, and the reason, to follow "because".

    `problem_type` is None for one label a row.
    """

    task_type: TaskType
    keys: Mapping[str, Mapping[str, Any]]
    reason: str
    problem_type: ProblemType | None = None


@dataclass(frozen=True)
class _Column:
    name: str
    values: Sequence[Any]

    @property
    def present(self) -> Sequence[Any]:
        """Return the values that are there. One that a row lacks is a fault of that row, named later."""
        return [value for value in self.values if value is not None]

    @property
    def is_text(self) -> bool:
        return self._holds_mostly(self.present) and all(isinstance(value, str) for value in self.present)

    @property
    def filled(self) -> Sequence[Any]:
        """Return the values that are there and not empty."""
        return [value for value in self.present if str(value).strip()]

    @property
    def is_label(self) -> bool:
        return self._holds_mostly(self.filled) and all(
            isinstance(value, str | int | float) for value in self.present
        )

    @property
    def is_number(self) -> bool:
        """True if all values are numbers that hardly repeat, as those of a scale do and labels do not.

        Whole numbers in a column with the name of labels are labels too, such as the ids of many intents.
        """
        if self.repeats or not self._holds_mostly(self.filled) or not all(map(_is_number, self.filled)):
            return False
        if self.name.strip().lower() not in _LABELS:
            return True
        return any(not float(value).is_integer() for value in self.filled)

    @property
    def is_label_list(self) -> bool:
        return self._holds_mostly(self.present) and all(
            isinstance(value, list) and all(isinstance(one, str) for one in value) for value in self.present
        )

    @property
    def distinct(self) -> int:
        return len({str(value) for value in self.filled})

    @property
    def repeats(self) -> bool:
        """True if each value occurs twice or more on average, as labels do and texts do not."""
        return 1 <= self.distinct <= len(self.filled) / 2

    @property
    def length(self) -> float:
        return sum(map(len, self.present)) / len(self.values)

    def holds(self, kind: type) -> bool:
        return self._holds_mostly(self.present) and all(
            isinstance(value, list) and value and isinstance(value[0], kind) for value in self.present
        )

    def _holds_mostly(self, values: Sequence[Any]) -> bool:
        """Return True if more than half of the rows have one of these values."""
        return len(values) * 2 > len(self.values)


def choose_columns(path: Path, raw: bytes, stated: Mapping[str, str]) -> ColumnChoice:
    """Return the choice for a table. `stated` may hold task_type, text_column and label_column.

    Raise DataError if no columns fit.
    """
    found, whole = column_names(path, raw)
    # A column that no choice needs may lack values or occur twice. Any other is read, so that its fault is named.
    needed = {*_KNOWN, *stated.values()}
    names = [
        name
        for name in dict.fromkeys(found)
        if name and (name in whole or not needed.isdisjoint((name, name.strip().lower())))
    ]
    for key in ("text_column", "label_column"):
        if key in stated and stated[key] not in names:
            raise DataError(f"{path}: has no column {stated[key]!r} (data.{key}); found: {_listed(names)}")
    rows = [row for _, row in read_table(path, raw, names)]
    if not rows:
        raise DataError(f"{path}: holds no rows")
    columns = [_Column(name, [row[name] for row in rows]) for name in names]
    task_type = stated.get("task_type")
    for kind, choose in _KINDS:
        if task_type in (None, kind) and (choice := choose(columns, stated, task_type is not None)) is not None:
            _check_header(path, choice, columns)
            return choice
    wanted = "texts and labels, or of prompts and answers," if task_type is None else f"{task_type}"
    raise DataError(
        f"{path}: no columns of {wanted} were found among {_listed(found)}; name them, such as "
        "data.text_column=body data.label_column=kind, or, for prompts and answers, prompts.template={ask} "
        "prompts.completion={reply}; or write a recipe with: rootstock train init recipe.yaml"
    )


def _chats(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    for column in columns:
        if column.holds(dict) and all(set(value[0]) >= _MESSAGE for value in column.present):
            reason = f"{column.name} holds lists of messages"
            return ColumnChoice("CAUSAL_LM", {"data": {"messages_column": column.name}}, reason)
    return None


def _words(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    lists = [column for column in columns if column.holds(str)]
    tags = next((c for c in lists if all(is_tag(str(tag)) for value in c.present for tag in value)), None)
    words = next((column for column in lists if column is not tags), None)
    if tags is None or words is None:
        return None
    keys = {"data": {"token_column": words.name, "label_column": tags.name}}
    return ColumnChoice("TOKEN_CLS", keys, f"{words.name} holds lists of words and {tags.name} their tags")


def _label_lists(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    """Return the choice for a table with lists of labels, in a column that is stated or has a common name."""
    stated_name = stated.get("label_column")
    names = _LABELS if stated_name is None else (stated_name,)
    return _list_choice(columns, stated, _named([column for column in columns if column.is_label_list], names))


def _other_lists(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    """Return the choice for a table whose only labels are lists, whatever their name."""
    if "label_column" in stated:
        return None
    return _list_choice(columns, stated, next((column for column in columns if column.is_label_list), None))


def _list_choice(
    columns: Sequence[_Column], stated: Mapping[str, str], labels: _Column | None
) -> ColumnChoice | None:
    text = _text(columns, stated, labels)
    if labels is None or text is None:
        return None
    keys = {"data": {"text_column": text.name, "label_column": labels.name}}
    return ColumnChoice("SEQ_CLS", keys, f"{labels.name} holds lists of labels", MULTI)


def _prompts(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    """Return the choice of a prompt and an answer by their names, unless the answers repeat as labels do."""
    texts = [column for column in columns if column.is_text]
    if not asked and "label_column" in stated:
        return None
    answer = _named(texts, _ANSWERS)
    prompt = _named([column for column in texts if column is not answer], _PROMPTS)
    if answer is None or prompt is None or (answer.repeats and not asked):
        return None
    return _templates(prompt, answer, f"{prompt.name} and {answer.name} are names of a prompt and its answer")


def _labels(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    possible = [column for column in columns if column.is_label and column.name != stated.get("text_column")]
    # A column with one value comes last: if there is no other, the rows have one label, which is refused later.
    repeated = sorted(
        (column for column in possible if column.repeats),
        key=lambda column: (column.distinct == 1, column.distinct),
    )
    label = _named(columns, (stated.get("label_column", ""),)) or _named(possible, _LABELS)
    label = label or next(iter(repeated), None) or _named([one for one in possible if one.is_number], _NUMBERS)
    text = _text(columns, stated, label)
    if label is None or text is None:
        return None
    keys = {"data": {"text_column": text.name, "label_column": label.name}}
    if label.is_number:
        reason = f"{label.name} holds {label.distinct} different numbers in {len(label.values)} rows"
        return ColumnChoice("SEQ_CLS", keys, reason, REGRESSION)
    return ColumnChoice(
        "SEQ_CLS", keys, f"{label.name} has {label.distinct} different values in {len(label.values)} rows"
    )


def _text(columns: Sequence[_Column], stated: Mapping[str, str], label: _Column | None) -> _Column | None:
    """Return the stated column of texts, or the one with a common name, or that of the longest texts."""
    texts = [column for column in columns if column.is_text and column is not label]
    text = _named(columns, (stated.get("text_column", ""),)) or _named(texts, _TEXTS)
    return text or max(texts, key=lambda column: column.length, default=None)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (ValueError, OverflowError):
        return False


def _two_texts(columns: Sequence[_Column], stated: Mapping[str, str], asked: bool) -> ColumnChoice | None:
    """Return the choice for a table of two columns of texts, if the caller asks for prompts and answers."""
    texts = [column for column in columns if column.is_text]
    if not asked or len(columns) != 2 or len(texts) != 2:
        return None
    return _templates(texts[0], texts[1], f"you ask for it, and {texts[0].name} comes before {texts[1].name}")


# In the order of their tries.
_KINDS = (
    ("CAUSAL_LM", _chats), ("TOKEN_CLS", _words), ("SEQ_CLS", _label_lists), ("CAUSAL_LM", _prompts),
    ("SEQ_CLS", _labels), ("SEQ_CLS", _other_lists), ("CAUSAL_LM", _two_texts),
)  # fmt: skip


def _templates(prompt: _Column, answer: _Column, reason: str) -> ColumnChoice:
    keys = {"prompts": {"template": f"{{{prompt.name}}}", "completion": f"{{{answer.name}}}"}}
    return ColumnChoice("CAUSAL_LM", keys, reason)


def _named(columns: Iterable[_Column], names: Sequence[str]) -> _Column | None:
    """Return the column with the first of these names that there is, in capitals or not."""
    by_name = {column.name.strip().lower(): column for column in columns}
    return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)


def _check_header(path: Path, choice: ColumnChoice, columns: Sequence[_Column]) -> None:
    """Raise DataError for a file whose first line is a row: the name of the labels' column is a label then."""
    name = choice.keys.get("data", {}).get("label_column")
    values = next((column.values for column in columns if column.name == name), ())
    if path.suffix.lower() == ".csv" and name in values and name not in _LABELS:
        raise DataError(
            f"{path}, line 1: no header, because {quoted(name)} is a value of its column too; begin the file "
            "with the names of its columns, such as text,label"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:20])) or "nothing"

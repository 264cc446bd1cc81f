"""An adapter as a server answers under it, measured on labelled rows like a bundle at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootstock.adapters.client.client import Client
from rootstock.training.data.dataset import read_rows
from rootstock.training.data.example import OUTSIDE, Example
from rootstock.training.errors import DataError, TrainingError
from rootstock.training.metrics.evaluation import entity_figures, label_figures
from rootstock.training.network.trunk import TASKS
from rootstock.training.recipe.recipe_file import naming

_INPUTS = 32


def assess_served(
    client: Client, reference: str, data: Path, text_column: str, label_column: str
) -> dict[str, Any]:
    """The figures of what the server answers under a reference; a text beyond the adapter's limit is truncated.

    TrainingError for a task that is not measured here, DataError for rows that cannot be read.
    """
    task = client.show(reference.partition("@")[0])["task"]
    task_type = next((kind for kind, name in TASKS.items() if name == task), None)
    if task_type is None:
        raise TrainingError(f"{reference}: its task is {task}; measured here: {', '.join(TASKS.values())}")
    examples = read_rows(naming(data, task_type, text_column, label_column), data.name, "DATA").examples
    if task_type == "SEQ_CLS":
        return _texts(client, reference, examples, data)
    given = _answers(client, reference, examples, {"ignore_labels": [], "truncation": True})
    tags = [_tags(example, tokens) for example, tokens in zip(examples, given, strict=True)]
    return entity_figures([list(example.labels) for example in examples], tags)


def _texts(client: Client, reference: str, examples: Sequence[Example], data: Path) -> dict[str, Any]:
    given = [answer["label"] for answer in _answers(client, reference, examples, {"truncation": True})]
    labels = sorted({example.labels[0] for example in examples} | set(given))
    if len(labels) < 2:
        raise DataError(f"{data}: every row is {labels[0]!r} and answered so; there is nothing to measure")
    ids = {label: i for i, label in enumerate(labels)}
    return label_figures([ids[e.labels[0]] for e in examples], [ids[label] for label in given], labels)


def _answers(
    client: Client, reference: str, examples: Sequence[Example], parameters: dict[str, Any]
) -> list[Any]:
    found: list[Any] = []
    for start in range(0, len(examples), _INPUTS):
        chosen = examples[start : start + _INPUTS]
        inputs = [e.text if e.pair is None else {"text": e.text, "text_pair": e.pair} for e in chosen]
        found += client.predict(reference, inputs, parameters)["predictions"]
    return found


def _tags(example: Example, tokens: Sequence[dict[str, Any]]) -> list[str]:
    """The tag of each word: its first token's, as in training, and O for a word that was cut off."""
    by_word: dict[int | None, str] = {}
    for token in tokens:
        word = example.word_of(int(token["start"]), int(token["end"]))
        by_word.setdefault(word, str(token["entity"]))
    return [by_word.get(word, OUTSIDE) for word in range(len(example.words))]

"""The figures of a server's answers under an adapter, on labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.predictions import ClassificationResult, EntitiesResult, Entity
from rootstock.adapters.client.routes import GivenInput
from rootstock.adapters.tasks import task_named
from rootstock.training.data.encoding import TokenRow, values_of
from rootstock.training.data.example import OUTSIDE, Example
from rootstock.training.errors import DataError, TrainingError
from rootstock.training.metrics.evaluation import entity_figures, label_figures
from rootstock.training.metrics.intervals import entity_intervals, label_intervals
from rootstock.training.metrics.ordinal import figures_by_value
from rootstock.training.problems.problem import Problem
from rootstock.training.problems.problem_table import problem_of
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION
from rootstock.training.recipe.recipe import CLASSIFYING, TaskType
from rootstock.training.study.labelled_rows import RowColumns, StatedTask, labelled_rows


def assess_on_server(client: Client, reference: str, data: Path, columns: RowColumns) -> dict[str, Any]:
    """Return the figures of the server's answers under a reference, and their `intervals`.

    Texts beyond the server's limit are truncated.

    Raise TrainingError for a task that cannot be measured, and DataError for rows that cannot be read or whose
    labels the adapter lacks, if a row may have several.
    """
    task, description = _described(client, reference)
    if task not in CLASSIFYING:
        raise TrainingError(
            f"{reference}: the adapter's task is {task}; choose an adapter for {' or '.join(CLASSIFYING)}"
        )
    task_type = cast(TaskType, task_named(task).peft_type)
    problem_type, labels = description.get("problem_type"), tuple(description.get("labels") or ())
    examples = labelled_rows(data, StatedTask(task_type, problem_type, labels), columns).examples
    if problem_type in (MULTI, REGRESSION):
        return _values(client, reference, examples, problem_of(problem_type, labels), data)
    if task_type == "SEQ_CLS":
        return _texts(client, reference, examples, data)
    inputs = [_input(example) for example in examples]
    answers = client.predict_many(reference, inputs, EntitiesResult, ignore_labels=[], truncation=True)
    tags = [_tags(example, tokens) for example, tokens in zip(examples, answers, strict=True)]
    truth = [list(example.labels) for example in examples]
    return {**entity_figures(truth, tags), "intervals": entity_intervals(truth, tags)}


def _described(client: Client, reference: str) -> tuple[str | None, Mapping[str, Any]]:
    """Return the task and the description of the version that a reference means."""
    name, _, selector = reference.partition("@")
    if not selector:
        shown = client.show(name)
        return shown.task, shown.description or {}
    version = client.describe(name, client.resolve(reference)[1])
    return version.get("task"), version.get("description") or {}


def _texts(client: Client, reference: str, examples: Sequence[Example], data: Path) -> dict[str, Any]:
    inputs = [_input(example) for example in examples]
    answers = client.predict_many(reference, inputs, ClassificationResult, truncation=True)
    predicted = [answer.label for answer in answers]
    labels = sorted({example.labels[0] for example in examples} | set(predicted))
    if len(labels) < 2:
        raise DataError(f"{data}: every row and every answer is {labels[0]!r}; measuring needs two labels")
    ids = {label: i for i, label in enumerate(labels)}
    truth, given = [ids[e.labels[0]] for e in examples], [ids[label] for label in predicted]
    return {
        **label_figures(truth, given, labels),
        "intervals": label_intervals(truth, given, len(labels)),
        **figures_by_value(truth, given, labels),
    }


def _values(
    client: Client, reference: str, examples: Sequence[Example], problem: Problem, data: Path
) -> dict[str, Any]:
    """Return the figures of scores of all labels, or of numbers."""
    for example in examples:
        if example.several and (unknown := [one for one in example.labels if one not in problem.labels]):
            raise DataError(f"{data}, line {example.line}: {unknown[0]!r} is not a label of {reference}")
    inputs = [_input(example) for example in examples]
    answers = list(client.predict_many(reference, inputs, ClassificationResult, truncation=True, top_k=None))
    for answer in answers:
        # An alias may move, or be split, between the description and an answer.
        if differing := sorted(set(problem.labels) ^ set(answer.scores)):
            raise TrainingError(
                f"{reference}: version {answer.version} answers with other labels than the version that the "
                f"server describes; only one has {differing[0]!r}; name one version, such as "
                f"{reference.partition('@')[0]}@{answer.version}"
            )
    # A label applies from a score of 0.5 on, as from a logit of 0.
    middle = 0.0 if problem.problem_type == REGRESSION else 0.5
    outputs = [np.array([answer.scores[label] - middle for label in problem.labels]) for answer in answers]
    rows = [TokenRow((), (), values=values_of(example, problem.labels)) for example in examples]
    return {**problem.figures(outputs, rows), "intervals": problem.intervals(outputs, rows)}


def _input(example: Example) -> GivenInput:
    return example.text if example.pair is None else {"text": example.text, "text_pair": example.pair}


def _tags(example: Example, tokens: Sequence[Entity]) -> list[str]:
    """Return the tag of each word: its first token's, as in training, and O for a word that was cut off."""
    by_word: dict[int | None, str] = {}
    for token in tokens:
        by_word.setdefault(example.word_of(token.start, token.end), token.label)
    return [by_word.get(word, OUTSIDE) for word in range(len(example.words))]

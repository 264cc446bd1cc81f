"""A finished adapter on other rows: its figures, a comparison with another, and texts to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.dataset import read_texts
from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.formats.conll import tags_of
from rootstock.training.errors import DataError, TrainingError
from rootstock.training.metrics.calibration import softmax
from rootstock.training.network.network import outputs
from rootstock.training.network.predictor import Predictor
from rootstock.training.recipe.problem_keys import REGRESSION
from rootstock.training.recipe.recipe_file import naming
from rootstock.training.study.acquisition import choose, margins
from rootstock.training.study.labelled_rows import RowColumns, StatedTask, labelled_rows


def assess(adapter: Predictor, data: Path, columns: RowColumns) -> dict[str, Any]:
    """Return the figures of an adapter on a labelled file, their `intervals`, and those of numbers (`ordinal`).

    Raise DataError for a label that the adapter lacks.
    """
    rows, problem = _rows(adapter, data, columns), adapter.problem
    raw = adapter.predict(rows)
    figures = {**problem.figures(raw, rows), "intervals": problem.intervals(raw, rows)}
    if ordinal := problem.comparisons({"adapter": raw}, rows).get("ordinal"):
        figures["ordinal"] = ordinal["adapter"]
    return figures


def compare_adapters(first: Predictor, second: Predictor, data: Path, columns: RowColumns) -> dict[str, Any]:
    """Return both scores and a paired test of the second. Raise TrainingError if problems or labels differ."""
    kinds = [adapter.problem.problem_type for adapter in (first, second)]
    if kinds[0] != kinds[1]:
        raise TrainingError(
            f"{first.path} and {second.path} have different problem types, {kinds[0]} and {kinds[1]}; choose "
            "adapters of the same type"
        )
    numbers = kinds[0] == REGRESSION
    if not numbers and sorted(first.labels) != sorted(second.labels):
        differing = sorted(set(first.labels) ^ set(second.labels))[0]
        raise TrainingError(
            f"{first.path} and {second.path} have different labels: only one has {differing!r}; choose adapters "
            "with the same labels"
        )
    scores, outputs = [], []
    rows: list[TokenRow] = []
    for adapter in (first, second):
        rows = _rows(adapter, data, columns)
        raw = adapter.predict(rows)
        # Both in the order of the second's labels, which the last `rows` are in.
        order = [0] if numbers else [adapter.labels.index(label) for label in second.labels]
        outputs.append([row[..., order] for row in raw])
        scores.append(adapter.problem.score(raw, rows))
    paired = second.problem.compare(outputs[0], outputs[1], rows)
    return {"first": scores[0], "second": scores[1], "rows": len(rows), "paired": paired.to_json()}


def suggest_rows(adapter: Predictor, data: Path, text_column: str, count: int) -> list[dict[str, Any]]:
    """Return the texts of a file to label next, the most useful first, with the adapter's label for each."""
    if adapter.task_type != "SEQ_CLS":
        raise TrainingError(
            f"{adapter.path}: suggestions need a text classifier; this adapter's task is "
            f"{adapter.bundle.manifest.task}"
        )
    if not adapter.problem.has_classes:
        raise TrainingError(
            f"{adapter.path}: suggestions need an adapter that gives each text one label; the problem type of "
            f"this one is {adapter.problem.problem_type}"
        )
    texts = read_texts(naming(data, adapter.task_type, text_column, "label"), data.name, "UNLABELLED")
    rows = adapter.encoder.encode_texts(texts)
    probabilities = softmax(np.stack(adapter.predict(rows)))
    embeddings: Array = np.stack(outputs(adapter.network, adapter.encoder.inputs(rows), "embed"))
    gaps = margins(list(probabilities))
    return [
        {
            "row": int(i) + 1,
            "text": texts[i],
            "label": adapter.labels[int(probabilities[i].argmax())],
            "margin": float(gaps[i]),
        }
        for i in choose(gaps, embeddings, count)
    ]


def _rows(adapter: Predictor, data: Path, columns: RowColumns) -> list[TokenRow]:
    task = StatedTask(adapter.task_type, adapter.bundle.manifest.problem_type, adapter.labels)
    examples = labelled_rows(data, task, columns).examples
    known: Sequence[str] = adapter.labels
    for example in examples:
        labels = example.labels
        if unknown := [label for label in labels if label not in known]:
            raise DataError(f"{data}, line {example.line}: {unknown[0]!r} is not a label of {adapter.path}")
    if examples[0].words and not set(tags_of(examples)) <= set(known):
        raise DataError(f"{data}: has tags that {adapter.path} lacks; correct them, or choose another adapter")
    return adapter.encoder.encode(examples)

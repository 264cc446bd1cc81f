"""A finished adapter on other rows: its figures, a comparison with another, and texts to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.dataset import read_rows, read_texts
from rootstock.training.data.encoding import TokenRow
from rootstock.training.data.formats.conll import tags_of
from rootstock.training.errors import DataError, TrainingError
from rootstock.training.fit.method import compare
from rootstock.training.metrics.calibration import softmax
from rootstock.training.metrics.evaluation import evaluate, macro_f1
from rootstock.training.metrics.intervals import output_intervals
from rootstock.training.metrics.ordinal import figures_by_value
from rootstock.training.network.network import outputs
from rootstock.training.network.predictor import Predictor
from rootstock.training.recipe.recipe_file import naming
from rootstock.training.study.acquisition import choose, margins


def assess(adapter: Predictor, data: Path, text_column: str, label_column: str) -> dict[str, Any]:
    """Return the figures of an adapter on a labelled file, their `intervals`, and those of numbers (`ordinal`).

    Raise DataError for a label that the adapter lacks.
    """
    rows = _rows(adapter, data, text_column, label_column)
    raw = adapter.predict(rows)
    ordinal: dict[str, Any] = {}
    if not rows[0].words:
        truth, predicted = [row.targets[0] for row in rows], [int(output.argmax()) for output in raw]
        ordinal = figures_by_value(truth, predicted, adapter.labels)
    return {
        **evaluate(raw, rows, adapter.labels),
        "intervals": output_intervals(raw, rows, adapter.labels),
        **ordinal,
    }


def compare_adapters(
    first: Predictor, second: Predictor, data: Path, text_column: str, label_column: str
) -> dict[str, Any]:
    """Return both scores and a paired test of the second. Raise TrainingError if the labels differ."""
    if sorted(first.labels) != sorted(second.labels):
        differing = sorted(set(first.labels) ^ set(second.labels))[0]
        raise TrainingError(
            f"{first.path} and {second.path} have different labels: only one has {differing!r}; choose adapters "
            "with the same labels"
        )
    scores, outputs = [], []
    rows: list[TokenRow] = []
    for adapter in (first, second):
        rows = _rows(adapter, data, text_column, label_column)
        raw = adapter.predict(rows)
        # Both in the order of the second's labels, which the last `rows` are in.
        order = [adapter.labels.index(label) for label in second.labels]
        outputs.append([row[..., order] for row in raw])
        scores.append(macro_f1(raw, rows, adapter.labels))
    paired = compare(outputs[0], outputs[1], rows, second.labels)
    return {"first": scores[0], "second": scores[1], "rows": len(rows), "paired": paired.to_json()}


def suggest_rows(adapter: Predictor, data: Path, text_column: str, count: int) -> list[dict[str, Any]]:
    """Return the texts of a file to label next, the most useful first, with the adapter's label for each."""
    if adapter.task_type != "SEQ_CLS":
        raise TrainingError(
            f"{adapter.path}: suggestions need a text classifier; this adapter's task is "
            f"{adapter.bundle.manifest.task}"
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


def _rows(adapter: Predictor, data: Path, text_column: str, label_column: str) -> list[TokenRow]:
    examples = read_rows(naming(data, adapter.task_type, text_column, label_column), data.name, "DATA").examples
    known: Sequence[str] = adapter.labels
    for example in examples:
        labels = example.labels
        if unknown := [label for label in labels if label not in known]:
            raise DataError(f"{data}, line {example.line}: {unknown[0]!r} is not a label of {adapter.path}")
    if examples[0].words and not set(tags_of(examples)) <= set(known):
        raise DataError(f"{data}: has tags that {adapter.path} lacks; correct them, or choose another adapter")
    return adapter.encoder.encode(examples)

"""A finished adapter on other rows: its figures, a comparison with another, and what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.conll import tags_of
from rootstock.training.data.dataset import read_rows, read_texts
from rootstock.training.data.encoding import TokenRow, encode, encode_texts
from rootstock.training.errors import DataError, TrainingError
from rootstock.training.fit.method import compare_outputs
from rootstock.training.metrics.calibration import softmax
from rootstock.training.metrics.evaluation import evaluate, macro_f1
from rootstock.training.network.network import outputs
from rootstock.training.network.predictor import Predictor
from rootstock.training.recipe.recipe_file import naming
from rootstock.training.study.acquisition import choose, margins


def assess(trained: Predictor, data: Path, text_column: str, label_column: str) -> dict[str, Any]:
    """The figures of an adapter on a labelled file; DataError where a label is none of the adapter's."""
    rows = _rows(trained, data, text_column, label_column)
    return evaluate(trained.predict(rows), rows, trained.labels)


def compare_adapters(
    first: Predictor, second: Predictor, data: Path, text_column: str, label_column: str
) -> dict[str, Any]:
    """Both scores and a paired test of whether the second is better; TrainingError unless their labels agree."""
    if sorted(first.labels) != sorted(second.labels):
        differing = sorted(set(first.labels) ^ set(second.labels))[0]
        raise TrainingError(f"{first.path} and {second.path} have other labels: {differing!r} is in one of them")
    scores, found = [], []
    rows: list[TokenRow] = []
    for trained in (first, second):
        rows = _rows(trained, data, text_column, label_column)
        given = trained.predict(rows)
        # Both in the order of the second's labels, which the last `rows` are in.
        order = [trained.labels.index(label) for label in second.labels]
        found.append([row[..., order] for row in given])
        scores.append(macro_f1(given, rows, trained.labels))
    paired = compare_outputs(found[0], found[1], rows, second.labels)
    return {"first": scores[0], "second": scores[1], "rows": len(rows), "paired": paired.to_json()}


def suggest_rows(trained: Predictor, data: Path, text_column: str, count: int) -> list[dict[str, Any]]:
    """The texts of a file to label next, the most useful first, with the label that the adapter would give."""
    if trained.task_type != "SEQ_CLS":
        raise TrainingError(f"{trained.path}: suggests texts for classifiers of texts; its task is another")
    texts = read_texts(naming(data, trained.task_type, text_column, "label"), data.name, "UNLABELLED")
    rows = encode_texts(trained.tokenizer, texts)
    probabilities = softmax(np.stack(trained.predict(rows)))
    embeddings: Array = np.stack(outputs(trained.network, trained.inputs(rows), "embed"))
    gaps = margins(list(probabilities))
    return [
        {
            "row": int(i) + 1,
            "text": texts[i],
            "label": trained.labels[int(probabilities[i].argmax())],
            "margin": float(gaps[i]),
        }
        for i in choose(gaps, embeddings, count)
    ]


def _rows(trained: Predictor, data: Path, text_column: str, label_column: str) -> list[TokenRow]:
    examples = read_rows(naming(data, trained.task_type, text_column, label_column), data.name, "DATA").examples
    known: Sequence[str] = trained.labels
    for example in examples:
        labels = example.labels
        if unknown := [label for label in labels if label not in known]:
            raise DataError(f"{data}, line {example.line}: {unknown[0]!r} is no label of {trained.path}")
    if examples[0].words and not set(tags_of(examples)) <= set(known):
        raise DataError(f"{data}: has tags that {trained.path} lacks")
    return encode(trained.tokenizer, examples, trained.labels)

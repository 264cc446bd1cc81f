"""Figures on held-out rows: accuracy and F1 by label, or F1 of whole entities by type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow

Span = tuple[int, str, int, int]


def evaluate(outputs: Sequence[Array], examples: Sequence[EncodedRow], labels: Sequence[str]) -> dict[str, Any]:
    """Return the figures of raw outputs against the truth in `examples`, rounded to four decimals."""
    if examples[0].words:
        truth, predicted = word_tags(outputs, examples, labels)
        return entity_figures(truth, predicted)
    return label_figures(
        [example.targets[0] for example in examples], [int(row.argmax()) for row in outputs], labels
    )


def macro_f1(outputs: Sequence[Array], examples: Sequence[EncodedRow], labels: Sequence[str]) -> float:
    """Return the score that chooses an epoch: macro-F1, or the F1 of whole entities."""
    figures = evaluate(outputs, examples, labels)
    return float(figures["f1" if examples[0].words else "macro_f1"])


def label_figures(truth: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, macro-F1, and precision, recall and F1 of each label (0 for one never predicted)."""
    by_label = {}
    for i, label in enumerate(labels):
        hits = sum(t == p == i for t, p in zip(truth, predicted, strict=True))
        by_label[label] = _rates(hits, predicted.count(i), truth.count(i))
    correct = sum(t == p for t, p in zip(truth, predicted, strict=True))
    return {
        "rows": len(truth),
        "accuracy": round(correct / len(truth), 4),
        "macro_f1": round(sum(rates["f1"] for rates in by_label.values()) / len(labels), 4),
        "labels": by_label,
    }


def entity_figures(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return precision, recall and F1 of entities, overall and by type.

    A predicted entity counts only if its type, its first word and its last word are all right.
    """
    true_spans, predicted_spans = set(spans(truth)), set(spans(predicted))
    types = sorted({span[1] for span in true_spans | predicted_spans})
    hits = true_spans & predicted_spans
    by_type = {
        kind: _rates(*(sum(span[1] == kind for span in group) for group in (hits, predicted_spans, true_spans)))
        for kind in types
    }
    overall = _rates(len(hits), len(predicted_spans), len(true_spans))
    return {"rows": len(truth), **overall, "entities": by_type}


def word_tags(
    outputs: Sequence[Array], examples: Sequence[EncodedRow], labels: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the true and the predicted tag of every word: that of its first token, `O` if it was cut off."""
    truth, predicted = [], []
    for row, example in zip(outputs, examples, strict=True):
        best = row.argmax(-1)
        truth.append([labels[i] for i in example.words])
        predicted.append(["O" if at is None else labels[int(best[at])] for at in example.first])
    return truth, predicted


def spans(sentences: Iterable[Sequence[str]]) -> Iterable[Span]:
    """Yield (sentence, type, first word, word after the last) of each entity; a lone `I-` begins none."""
    for number, tags in enumerate(sentences):
        begin, kind = 0, ""
        for at, tag in enumerate([*tags, "O"]):
            if kind and tag != f"I-{kind}":
                yield number, kind, begin, at
                kind = ""
            if tag.startswith("B-"):
                begin, kind = at, tag[2:]


def _rates(hits: int, predicted: int, true: int) -> dict[str, Any]:
    return {
        "precision": round(hits / predicted if predicted else 0.0, 4),
        "recall": round(hits / true if true else 0.0, 4),
        "f1": round(2 * hits / (predicted + true) if predicted + true else 0.0, 4),
        "support": true,
    }

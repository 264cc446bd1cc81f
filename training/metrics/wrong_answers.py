"""The held-out rows that an adapter gets wrong, the most confident answers first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.metrics.calibration import softmax

MOST = 50
_LONGEST = 200


def wrong_answers(
    outputs: Sequence[Array], examples: Sequence[Example], rows: Sequence[EncodedRow], labels: Sequence[str]
) -> dict[str, Any]:
    """Return the number of wrong answers, the number of all, and the `MOST` with the highest scores.

    `outputs` are raw, (labels,) for a text and (tokens, labels) for a sentence, in which each word has an
    answer. The score is the softmax of the answer. A word whose tokens were cut off is left out.
    """
    wrong: list[dict[str, Any]] = []
    answered = 0
    for output, example, row in zip(outputs, examples, rows, strict=True):
        probabilities = softmax(output)
        for text, truth, scores in _answers(example, row, probabilities):
            answered += 1
            best = int(scores.argmax())
            if best != truth:
                wrong.append(
                    {
                        "line": example.line,
                        "text": text,
                        "true": labels[truth],
                        "predicted": labels[best],
                        "score": round(float(scores[best]), 4),
                    }
                )
    ordered = sorted(wrong, key=lambda one: (-one["score"], one["line"]))
    return {"count": len(wrong), "of": answered, "rows": ordered[:MOST]}


def _answers(example: Example, row: EncodedRow, probabilities: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield the text of each answer of an example, its true class and its (labels,) probabilities."""
    if not row.words:
        yield shortened(example), row.targets[0], probabilities
        return
    for number, (truth, at) in enumerate(zip(row.words, row.first, strict=True)):
        if at is not None:
            yield _in_context(example, number), truth, probabilities[at]


def shortened(example: Example) -> str:
    """Return the text of an example, or its two texts, cut to a length that a table takes."""
    return _shortened(example.text if example.pair is None else f"{example.text} | {example.pair}")


def _in_context(example: Example, number: int) -> str:
    """Return a sentence with one word in brackets, and the words around it as far as they fit."""
    before, after = " ".join(example.words[:number]), " ".join(example.words[number + 1 :])
    room = _LONGEST // 2
    before = before if len(before) <= room else f"…{before[-room:]}"
    return " ".join(filter(None, (before, f"[{example.words[number]}]", _shortened(after, room))))


def _shortened(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else f"{text[:most]}…"

"""Doubts about the data of a run: test rows that training rows nearly repeat, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import EncodedRow
from rootstock.training.data.example import Example
from rootstock.training.data.near_copies import near_copies_of
from rootstock.training.problems.problem import Problem

_MOST = 20


@dataclass(frozen=True)
class JudgedRows:
    """Examples, their encoded rows, and raw outputs for them of models that did not see them."""

    examples: Sequence[Example]
    rows: Sequence[EncodedRow]
    outputs: Sequence[Array]


def data_doubts(
    training: Sequence[Example], judged: JudgedRows, test: JudgedRows, problem: Problem
) -> dict[str, Any]:
    """Return the doubts that a run has about its data, by kind; a kind without a doubt is left out.

    `near_copies` are test rows whose text is nearly that of a training row, with the figures of the `other` test
    rows. `label_noise` are labels of `judged`, the rows that chose the method, that a model of other rows finds
    unlikely. Raise MissingExtra without datasketch or cleanlab.
    """
    doubts: dict[str, Any] = {}
    if copies := _near_copies(training, test, problem):
        doubts["near_copies"] = copies
    if noise := _label_noise(judged, problem):
        doubts["label_noise"] = noise
    return doubts


def _near_copies(training: Sequence[Example], test: JudgedRows, problem: Problem) -> dict[str, Any]:
    if test.examples[0].file is not None:
        return {}
    found = near_copies_of([_text(one) for one in test.examples], [_text(one) for one in training])
    if not found:
        return {}
    closest = sorted(found, key=lambda number: -found[number].likeness)
    rows = []
    for number in closest[:_MOST]:
        own, other = test.examples[number], training[found[number].position]
        rows.append(
            {
                "line": own.line,
                "text": _text(own),
                "training_line": other.line,
                "training_text": _text(other),
                "likeness": round(found[number].likeness, 4),
            }
        )
    kept = [number for number in range(len(test.examples)) if number not in found]
    figures = {}
    if kept:
        figures = problem.figures([test.outputs[i] for i in kept], [test.rows[i] for i in kept])
    others = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return {"count": len(found), "of": len(test.examples), "rows": rows, "other": others}


def _label_noise(judged: JudgedRows, problem: Problem) -> dict[str, Any]:
    found = problem.doubts(judged.outputs, judged.rows)
    if not found:
        return {}
    rows = []
    for doubt in found[:_MOST]:
        example = judged.examples[doubt.row]
        rows.append(
            {
                "line": example.line,
                "text": _text(example) if doubt.word is None else example.words[doubt.word],
                "label": doubt.given,
                "likely": doubt.likely,
                "score": round(doubt.score, 4),
            }
        )
    count = sum(len(row.words) or len(row.values) or 1 for row in judged.rows)
    return {"count": len(found), "of": count, "rows": rows}


def _text(example: Example) -> str:
    return " ".join(filter(None, (example.text, example.pair)))

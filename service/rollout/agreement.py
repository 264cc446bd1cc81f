"""The comparison of two versions' answers to the same inputs, by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rootstock.service.engine.core.answer import Answer

# Vectors whose cosine is at least this agree.
LEAST_COSINE = 0.99
# Numbers agree within this, and within this share of the larger one.
ABSOLUTE, RELATIVE = 0.05, 0.05
_LIKELY = 0.5


def agree(one: Answer, other: Answer) -> bool:
    """Tell whether two answers to the same inputs agree, for each input by the rule of their task.

    Classifications agree on the best label, or with several labels on those that are likely. Tagged tokens agree
    on each span and tag, answers to questions on the best span, vectors on their direction, and numbers on their
    size. The scores of a ranking agree on the best text. Answers of two tasks never agree.
    """
    if one.task != other.task or len(one.predictions) != len(other.predictions):
        return False
    if one.task == "text-ranking" and len(one.predictions) > 1:
        return _best(one.predictions) == _best(other.predictions)
    same = _numbers if "regression" in (one.problem_type, other.problem_type) else _RULES.get(one.task, _labels)
    if "multi_label_classification" in (one.problem_type, other.problem_type):
        same = _likely_labels
    return all(same(mine, theirs) for mine, theirs in zip(one.predictions, other.predictions, strict=True))


def _labels(one: Any, other: Any) -> bool:
    return bool(_top(one) == _top(other))


def _top(prediction: Any) -> Any:
    """Return the best label of a prediction: an object with it, a list with the best first, or with two lists."""
    first = prediction[0] if isinstance(prediction, Sequence) and prediction else prediction
    if not isinstance(first, Mapping):
        return first
    return first["labels"][0] if first.get("labels") else first.get("label")


def _likely_labels(one: Any, other: Any) -> bool:
    """Compare the labels above one half; a single label that was asked for, by itself."""
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        return _labels(one, other)
    return _likely(one) == _likely(other)


def _likely(prediction: Sequence[Mapping[str, Any]]) -> set[str]:
    return {item["label"] for item in prediction if item["score"] > _LIKELY}


def _spans(one: Any, other: Any) -> bool:
    return _tags(one) == _tags(other)


def _tags(entities: Sequence[Mapping[str, Any]]) -> set[tuple[int, int, str]]:
    return {(each["start"], each["end"], each.get("entity") or each["entity_group"]) for each in entities}


def _answers(one: Any, other: Any) -> bool:
    return _span(one) == _span(other)


def _span(prediction: Any) -> tuple[int, int] | None:
    """Return the best span; None if the context holds no answer, as one of spaces."""
    best = prediction if isinstance(prediction, Mapping) else next(iter(prediction), None)
    return None if best is None else (best["start"], best["end"])


def _vectors(one: Any, other: Any) -> bool:
    mine, theirs = (np.asarray(vector, np.float64).ravel() for vector in (one, other))
    if mine.shape != theirs.shape:
        return False
    length = float(np.linalg.norm(mine) * np.linalg.norm(theirs))
    return bool(mine @ theirs >= LEAST_COSINE * length) if length else not (mine.any() or theirs.any())


def _numbers(one: Any, other: Any) -> bool:
    mine, theirs = _scores(one), _scores(other)
    return mine.keys() == theirs.keys() and all(_close(mine[label], theirs[label]) for label in mine)


def _scores(prediction: Any) -> dict[Any, float]:
    items = [prediction] if isinstance(prediction, Mapping) else prediction
    return {item.get("label"): float(item["score"]) for item in items}


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= max(ABSOLUTE, RELATIVE * max(abs(one), abs(other)))


def _best(predictions: Sequence[Mapping[str, float]]) -> int:
    scores = [prediction["score"] for prediction in predictions]
    return scores.index(max(scores))


_RULES: Mapping[str, Callable[[Any, Any], bool]] = {
    "token-classification": _spans,
    "question-answering": _answers,
    "feature-extraction": _vectors,
    "image-feature-extraction": _vectors,
    "audio-feature-extraction": _vectors,
    "text-ranking": _numbers,
}

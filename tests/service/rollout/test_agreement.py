"""The comparison of answers: two answers agree by the rule of their task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.adapters.tasks import TASKS
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.rollout.agreement import LEAST_COSINE, agree


def answer(task: str, *predictions: Any, problem: str | None = None) -> Answer:
    resolved = ResolvedReference("spam", 1, "sha256:0")
    return Answer(resolved, task, list(predictions), 1, 0, 0, 0, 0, 0, problem)


def label(name: str, score: float = 0.9) -> dict[str, Any]:
    return {"label": name, "score": score}


def tag(entity: str, start: int, end: int, score: float = 0.9) -> dict[str, Any]:
    return {"entity": entity, "score": score, "index": start, "word": "x", "start": start, "end": end}


def group(entity: str, start: int, end: int) -> dict[str, Any]:
    return {"entity_group": entity, "score": 0.9, "word": "x", "start": start, "end": end}


def span(start: int, end: int, score: float = 0.9) -> dict[str, Any]:
    return {"answer": "x", "score": score, "start": start, "end": end}


CLASSES = ("text-classification", "image-classification", "audio-classification")
SAME: list[tuple[str, Any, Any]] = [
    *((task, label("a", 0.9), label("a", 0.4)) for task in CLASSES),
    *((task, [label("a"), label("b")], [label("a"), label("c")]) for task in CLASSES),
    ("zero-shot-classification", {"labels": ["a", "b"], "scores": [0.6, 0.4]}, {"labels": ["a"], "scores": [1]}),
    ("zero-shot-image-classification", [label("a"), label("b")], [label("a", 0.5)]),
    ("token-classification", [tag("PER", 0, 3, 0.9)], [tag("PER", 0, 3, 0.5)]),
    ("token-classification", [group("PER", 0, 3), group("LOC", 5, 9)], [group("LOC", 5, 9), group("PER", 0, 3)]),
    ("token-classification", [], []),
    ("question-answering", span(3, 8), span(3, 8, 0.2)),
    ("question-answering", [span(3, 8), span(1, 2)], [span(3, 8), span(5, 6)]),
    ("question-answering", [], []),
    ("text-ranking", {"score": 0.9}, {"score": 0.91}),
    ("feature-extraction", [1.0, 0.0], [2.0, 0.0]),
    ("feature-extraction", [0.0, 0.0], [0.0, 0.0]),
]
OTHER: list[tuple[str, Any, Any]] = [
    *((task, label("a"), label("b")) for task in CLASSES),
    *((task, [label("a"), label("b")], [label("b"), label("a")]) for task in CLASSES),
    ("zero-shot-classification", {"labels": ["a", "b"], "scores": [0.6, 0.4]}, {"labels": ["b"], "scores": [1]}),
    ("zero-shot-image-classification", [label("a")], [label("b")]),
    ("token-classification", [tag("PER", 0, 3)], [tag("ORG", 0, 3)]),
    ("token-classification", [tag("PER", 0, 3)], [tag("PER", 0, 4)]),
    ("token-classification", [tag("PER", 0, 3)], []),
    ("token-classification", [group("PER", 0, 3)], [group("PER", 0, 3), group("LOC", 5, 9)]),
    ("question-answering", span(3, 8), span(3, 9)),
    ("question-answering", [span(3, 8)], []),
    ("text-ranking", {"score": 0.9}, {"score": 0.2}),
    ("feature-extraction", [1.0, 0.0], [0.0, 1.0]),
    ("feature-extraction", [1.0, 0.0], [1.0, 0.0, 0.0]),
    ("image-feature-extraction", [1.0, 0.0], [0.0, 0.0]),
    ("audio-feature-extraction", [1.0], [-1.0]),
]


@pytest.mark.parametrize(("task", "one", "other"), SAME)
def test_answers_that_mean_the_same_agree(task: str, one: Any, other: Any) -> None:
    assert agree(answer(task, one), answer(task, other))
    assert agree(answer(task, other), answer(task, one))


@pytest.mark.parametrize(("task", "one", "other"), OTHER)
def test_answers_that_differ_do_not_agree(task: str, one: Any, other: Any) -> None:
    assert not agree(answer(task, one), answer(task, other))
    assert not agree(answer(task, other), answer(task, one))


@pytest.mark.parametrize(("one", "other", "same"), [(3.0, 3.04, True), (3.0, 3.5, False), (100.0, 104.0, True)])
def test_numbers_agree_within_five_percent(one: float, other: float, same: bool) -> None:
    for task in CLASSES:
        answers = [answer(task, [label("LABEL_0", score)], problem="regression") for score in (one, other)]
        assert agree(*answers) == same


def test_several_labels_agree_if_the_likely_ones_are_the_same() -> None:
    def of(*labels: dict[str, Any]) -> Answer:
        return answer("text-classification", list(labels), problem="multi_label_classification")

    first = of(label("a", 0.9), label("b", 0.8), label("c", 0.1))
    assert agree(first, of(label("b", 0.7), label("a", 0.6), label("c", 0.4)))
    assert not agree(first, of(label("a", 0.9), label("b", 0.4), label("c", 0.1)))
    one = [answer("text-classification", label(name), problem="multi_label_classification") for name in "ab"]
    assert not agree(*one)


def test_a_ranking_agrees_if_the_best_text_is_the_same() -> None:
    def of(*scores: float) -> Answer:
        return answer("text-ranking", *({"score": score} for score in scores))

    assert agree(of(0.9, 0.1, 0.2), of(0.6, 0.5, 0.4))
    assert not agree(of(0.9, 0.1, 0.2), of(0.5, 0.6, 0.4))


def test_one_input_that_differs_makes_the_request_differ() -> None:
    task = "text-classification"
    assert agree(answer(task, label("a"), label("b")), answer(task, label("a"), label("b")))
    assert not agree(answer(task, label("a"), label("b")), answer(task, label("a"), label("a")))
    assert not agree(answer(task, label("a")), answer(task, label("a"), label("a")))


def test_answers_of_two_tasks_never_agree() -> None:
    assert not agree(answer("text-classification", label("a")), answer("image-classification", label("a")))


@given(st.integers(2, 32), st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_vectors_agree_by_their_cosine(size: int, seed: int, noise: float) -> None:
    draw = np.random.default_rng(seed)
    one = draw.normal(size=size)
    other = one + noise * draw.normal(size=size)
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    if abs(cosine - LEAST_COSINE) > 1e-9:
        vectors = [answer("feature-extraction", vector.tolist()) for vector in (one, other)]
        assert agree(*vectors) == (cosine >= LEAST_COSINE)


def test_every_task_of_one_pass_is_compared_here() -> None:
    compared = {task for task, _, _ in OTHER}
    alone = {"fill-mask", "text-generation", "text2text-generation"}
    assert {task.name for task in TASKS} - alone == compared

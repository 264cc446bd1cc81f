"""A right answer passes; every way of being wrong has its verdict."""

from __future__ import annotations

from typing import Any

import pytest

from rootstock.loadtest.judgement.chat_stream import ChatAnswer, ChatIdentity
from rootstock.loadtest.judgement.oracle import ExpectedText, Oracle, OracleVersion
from rootstock.loadtest.judgement.verdict import (
    AnswerJudgement,
    Verdict,
    of_chat,
    of_embedding,
    of_prediction,
    of_status,
    worst,
)

ORACLE = Oracle(
    texts=["hello", "bye"],
    versions={
        "a1": OracleVersion("a", 1, {0: [0.7, 0.3], 1: [0.2, 0.8]}),
        "a2": OracleVersion("a", 2, {0: [0.4, 0.6], 1: [0.5, 0.5]}),
        "b1": OracleVersion("b", 1, {0: [0.9, 0.1]}),
        "c1": OracleVersion("c", 1),
    },
    fingerprint="f",
    embeddings=[[0.6, 0.8], [1.0, 0.0]],
)

WORST_FIRST = [{"label": "LABEL_1", "score": 0.3}, {"label": "LABEL_0", "score": 0.7}]


def answer(**changes: Any) -> dict[str, Any]:
    scores = changes.pop("scores", [0.7, 0.3])
    labelled = [{"label": f"LABEL_{i}", "score": score} for i, score in enumerate(scores)]
    best = sorted(labelled, key=lambda one: -one["score"])
    return {"model": "a", "version": 1, "digest": "a1", "predictions": [best], **changes}


def judged(given: Any, live: set[str] | None = None, name: str = "a") -> AnswerJudgement:
    return of_prediction(given, name, [0], live or {"a1"}, ORACLE)


def test_the_right_scores_of_the_live_version_pass() -> None:
    assert judged(answer()) == AnswerJudgement(Verdict.OK, scored=True)


def test_a_score_within_the_published_tolerance_passes_and_one_outside_does_not() -> None:
    assert judged(answer(scores=[0.70012, 0.29988])).verdict is Verdict.OK
    assert judged(answer(scores=[0.70014, 0.29986])).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(digest="a2", version=2, scores=[0.4, 0.6]), Verdict.STALE),
        (answer(digest="b1", scores=[0.9, 0.1]), Verdict.MIXED),
        (answer(digest="unheard of"), Verdict.MIXED),
        (answer(model="b"), Verdict.MIXED),
        (answer(scores=[0.9, 0.1]), Verdict.MIXED),
        (answer(scores=[0.4, 0.6]), Verdict.MIXED),
        (answer(scores=[0.5, 0.5]), Verdict.WRONG),
        (answer(scores=[0.3, 0.7]), Verdict.WRONG),
        (answer(scores=[0.7, 0.2, 0.1]), Verdict.WRONG),
        (answer(version=2), Verdict.WRONG),
        (answer(predictions=[]), Verdict.WRONG),
        (answer(predictions=[WORST_FIRST]), Verdict.FAILED),
        ({"model": "a"}, Verdict.FAILED),
        ([], Verdict.FAILED),
        (None, Verdict.FAILED),
    ],
)  # fmt: skip
def test_a_wrong_answer_has_its_verdict(given: Any, verdict: Verdict) -> None:
    assert judged(given).verdict is verdict


def test_of_two_versions_that_may_answer_each_must_give_its_own_scores() -> None:
    both = {"a1", "a2"}
    assert judged(answer(digest="a2", version=2, scores=[0.4, 0.6]), both).verdict is Verdict.OK
    assert judged(answer(digest="a2", version=2, scores=[0.7, 0.3]), both).verdict is Verdict.MIXED


def test_where_no_scores_are_known_the_digest_alone_is_held() -> None:
    given = answer(model="c", digest="c1", scores=[0.1, 0.9])
    assert judged(given, {"c1"}, "c") == AnswerJudgement(Verdict.OK, scored=False)
    assert judged(answer(model="c", digest="b1"), {"c1"}, "c").verdict is Verdict.MIXED


@pytest.mark.parametrize(
    ("status", "retry_after", "verdict"),
    [
        (429, "1", Verdict.REFUSED),
        (429, None, Verdict.FAILED),
        (429, "0", Verdict.FAILED),
        (429, "soon", Verdict.FAILED),
        (500, "1", Verdict.FAILED),
        (404, None, Verdict.FAILED),
        (0, None, Verdict.FAILED),
    ],
)
def test_a_refusal_has_to_say_when_to_retry(status: int, retry_after: str | None, verdict: Verdict) -> None:
    judgement = of_status(status, retry_after)
    assert judgement is not None
    assert judgement.verdict is verdict


def test_an_embedding_is_held_against_the_foundations_own() -> None:
    def given(vector: list[float]) -> dict[str, Any]:
        return {"model": "foundation", "data": [{"embedding": vector}]}

    assert of_embedding(given([0.6, 0.8]), 0, ORACLE).verdict is Verdict.OK
    assert of_embedding(given([0.61, 0.79]), 0, ORACLE).verdict is Verdict.WRONG
    assert of_embedding({"model": "a", "data": [{"embedding": [0.6, 0.8]}]}, 0, ORACLE).verdict is Verdict.MIXED
    assert of_embedding({}, 0, ORACLE).verdict is Verdict.FAILED


def test_one_fault_among_several_answers_is_the_verdict_on_them() -> None:
    fine, bad = AnswerJudgement(Verdict.OK, scored=True), AnswerJudgement(Verdict.STALE)
    assert worst([fine, bad, fine]) is bad
    assert worst([fine, AnswerJudgement(Verdict.OK)]) == AnswerJudgement(Verdict.OK, scored=False)


CHATS = Oracle(
    texts=["hello", "bye"],
    versions={
        "a1": OracleVersion(
            "a", 1, answers={0: ExpectedText("good day", 2), 1: ExpectedText("so", 1, whole=False)}
        ),
        "a2": OracleVersion("a", 2, answers={0: ExpectedText("good night", 2)}),
        "b1": OracleVersion("b", 1, answers={0: ExpectedText("hi", 1)}),
    },
)


def chat(text: str = "good day", tokens: int = 2, *identities: tuple[str, str | None, int | None]) -> ChatAnswer:
    named = [ChatIdentity(*one) for one in identities or [("a", "a1", 1)]]
    return ChatAnswer(text, tokens, [1.0], 2.0, frozenset(named))


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (chat(), Verdict.OK),
        (chat("good night", 2, ("a", "a2", 2)), Verdict.STALE),
        (chat("hi", 1, ("a", "b1", 1)), Verdict.MIXED),
        (chat("good day", 2, ("b", "a1", 1)), Verdict.MIXED),
        (chat("good day", 2, ("a", None, None)), Verdict.MIXED),
        (chat("good day", 2, ("a", "a1", 1), ("a", "a2", 2)), Verdict.MIXED),
        (chat("good night", 2), Verdict.MIXED),
        (chat("hi", 1), Verdict.MIXED),
        (chat("good day", 2, ("a", "a1", 2)), Verdict.WRONG),
        (chat("good"), Verdict.WRONG),
        (chat("good day!"), Verdict.WRONG),
        (chat("good day", 3), Verdict.WRONG),
    ],
)
def test_a_chats_answer_has_its_verdict(given: ChatAnswer, verdict: Verdict) -> None:
    assert of_chat(given, "a", 0, {"a1"}, CHATS).verdict is verdict


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (chat("so", 1), Verdict.OK),
        (chat("so be it", 3), Verdict.OK),
        (chat("be it so", 3), Verdict.WRONG),
        (chat("so", 0), Verdict.WRONG),
    ],
)
def test_after_a_near_tie_an_answer_may_go_on_in_any_way(given: ChatAnswer, verdict: Verdict) -> None:
    assert of_chat(given, "a", 1, {"a1"}, CHATS).verdict is verdict


def test_a_chats_answer_to_a_text_without_a_known_answer_is_held_by_its_digest() -> None:
    assert of_chat(chat("hi", 1, ("b", "b1", 1)), "b", 1, {"b1"}, CHATS) == AnswerJudgement(Verdict.OK)

"""The verdict on an answer, by the versions that were live at the time and by the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rootstock.loadtest.judgement.chat_stream import ChatAnswer
from rootstock.loadtest.judgement.oracle import ExpectedText, Oracle, OracleVersion, close


class Verdict(StrEnum):
    """A kind of answer.

    `refused` is 429 with Retry-After. A `stale` answer is by a version of the adapter that was not live at any
    time between request and answer. A `mixed` answer is by another adapter. A `wrong` answer is by the right
    version, but with other numbers or another text. `failed` is no answer, or one that does not have the route's
    form.
    """

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    STALE = "stale"
    MIXED = "mixed"
    WRONG = "wrong"


FAULTS = (Verdict.FAILED, Verdict.STALE, Verdict.MIXED, Verdict.WRONG)


@dataclass(frozen=True)
class AnswerJudgement:
    """A verdict with its reason. `scored`: numbers or a text were compared, not the digest alone."""

    verdict: Verdict
    detail: str = ""
    scored: bool = False


def of_status(status: int, retry_after: str | None) -> AnswerJudgement | None:
    """Return the verdict of a status other than 200; None for 200. A refusal needs a time to retry."""
    if status == 200:
        return None
    if status == 429:
        if retry_after is not None and retry_after.isdigit() and int(retry_after) > 0:
            return AnswerJudgement(Verdict.REFUSED)
        return AnswerJudgement(Verdict.FAILED, f"429 with Retry-After {retry_after!r}")
    return AnswerJudgement(Verdict.FAILED, f"status {status}")


def of_prediction(
    answer: Any, name: str, texts: Sequence[int], live: set[str], oracle: Oracle
) -> AnswerJudgement:
    """Return the verdict on one adapter's answer for texts (indices): digest, version, every label's score."""
    try:
        model, digest, number = answer["model"], answer["digest"], answer["version"]
        predictions = [_by_label(one) for one in answer["predictions"]]
    except (KeyError, TypeError, ValueError) as error:
        return AnswerJudgement(Verdict.FAILED, f"{name}: malformed answer ({error!r})")
    version = _live_version(name, model, digest, number, live, oracle)
    if isinstance(version, AnswerJudgement):
        return version
    if len(predictions) != len(texts):
        return AnswerJudgement(Verdict.WRONG, f"{name}: {len(predictions)} predictions for {len(texts)} inputs")
    return _of_scores(name, digest, texts, predictions, oracle)


def of_chat(answer: ChatAnswer, name: str, text: int, live: set[str], oracle: Oracle) -> AnswerJudgement:
    """Return the verdict on a chat's greedy answer to a text (index): digest, version, text, number of tokens."""
    if len(answer.identities) != 1:
        return AnswerJudgement(
            Verdict.MIXED, f"{name}: the events of one answer name {sorted(map(repr, answer.identities))}"
        )
    ((model, digest, number),) = answer.identities
    version = _live_version(name, model, digest, number, live, oracle)
    if isinstance(version, AnswerJudgement):
        return version
    expected = version.answers.get(text)
    if expected is None:
        return AnswerJudgement(Verdict.OK)
    if _has_text(answer, expected):
        return AnswerJudgement(Verdict.OK, scored=expected.tokens > 0)
    others = (v for d, v in oracle.versions.items() if d != digest and text in v.answers)
    if other := next((v for v in others if v.answers[text].tokens and _has_text(answer, v.answers[text])), None):
        return AnswerJudgement(
            Verdict.MIXED, f"{name}: text {text} has the answer of {other.name}, version {other.number}"
        )
    return AnswerJudgement(
        Verdict.WRONG,
        f"{name}: text {text} got {answer.text!r} of {answer.tokens} tokens, expected {expected}",
    )


def _has_text(answer: ChatAnswer, expected: ExpectedText) -> bool:
    if expected.whole:
        return answer.text == expected.text and answer.tokens == expected.tokens
    return answer.text.startswith(expected.text) and answer.tokens >= expected.tokens


def _live_version(
    name: str, model: Any, digest: Any, number: Any, live: set[str], oracle: Oracle
) -> OracleVersion | AnswerJudgement:
    """Return the version that an answer names, or the fault if it may not have answered."""
    if model != name:
        return AnswerJudgement(Verdict.MIXED, f"{name}: the answer names {model}")
    version = oracle.versions.get(digest)
    if version is None or version.name != name.partition("@")[0]:
        whose = "unknown" if version is None else f"of {version.name}"
        return AnswerJudgement(Verdict.MIXED, f"{name}: the answer's digest {digest} is {whose}")
    if digest not in live:
        return AnswerJudgement(
            Verdict.STALE, f"{name}: version {number} answered, but the live digests were {sorted(live)}"
        )
    if number != version.number:
        return AnswerJudgement(Verdict.WRONG, f"{name}: says version {number} for the digest of {version.number}")
    return version


def _of_scores(
    name: str, digest: str, texts: Sequence[int], predictions: Sequence[Sequence[float]], oracle: Oracle
) -> AnswerJudgement:
    expected = oracle.versions[digest].scores
    scored = False
    for text, scores in zip(texts, predictions, strict=True):
        if text not in expected:
            continue
        scored = True
        if close(scores, expected[text]):
            continue
        others = (d for d, v in oracle.versions.items() if d != digest and text in v.scores)
        if other := next((d for d in others if close(scores, oracle.versions[d].scores[text])), None):
            return AnswerJudgement(
                Verdict.MIXED, f"{name}: text {text} has the scores of {oracle.versions[other].name}"
            )
        return AnswerJudgement(
            Verdict.WRONG, f"{name}: text {text} scores {scores}, expected {list(expected[text])}"
        )
    return AnswerJudgement(Verdict.OK, scored=scored)


def of_embedding(answer: Any, text: int, oracle: Oracle) -> AnswerJudgement:
    """Return the verdict on an embedding by the bare foundation."""
    try:
        vector = answer["data"][0]["embedding"]
        model = answer["model"]
    except (KeyError, TypeError, IndexError) as error:
        return AnswerJudgement(Verdict.FAILED, f"embedding: malformed answer ({error!r})")
    if model != "foundation":
        return AnswerJudgement(Verdict.MIXED, f"embedding: the answer names {model}")
    if not close(vector, oracle.embeddings[text]):
        return AnswerJudgement(Verdict.WRONG, f"embedding of text {text} differs from transformers'")
    return AnswerJudgement(Verdict.OK, scored=True)


def worst(judgements: Sequence[AnswerJudgement]) -> AnswerJudgement:
    """Return the first fault of several judgements, else the first refusal, else one that all are right."""
    faults = [one for one in judgements if one.verdict in FAULTS]
    refusals = [one for one in judgements if one.verdict is Verdict.REFUSED]
    right = AnswerJudgement(Verdict.OK, scored=all(one.scored for one in judgements))
    return (faults or refusals or [right])[0]


def _by_label(prediction: Any) -> list[float]:
    """Return the scores in order of the label's id. Raise ValueError unless they come best first."""
    scores = [float(one["score"]) for one in prediction]
    if scores != sorted(scores, reverse=True):
        raise ValueError("scores are not best first")
    by_label = {str(one["label"]): float(one["score"]) for one in prediction}
    return [by_label[f"LABEL_{i}"] for i in range(len(by_label))]

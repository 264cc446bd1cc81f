"""The requests of a plan, one after another, each with the judge of its answer."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from rootstock.loadtest.fixtures.popularity import choose
from rootstock.loadtest.judgement.chat_stream import BrokenStream, LineSource, chat_answer, events_of
from rootstock.loadtest.judgement.ledger import Ledger
from rootstock.loadtest.judgement.oracle import Oracle
from rootstock.loadtest.judgement.verdict import (
    AnswerJudgement,
    Verdict,
    of_chat,
    of_embedding,
    of_prediction,
    of_status,
    worst,
)

PREDICT, FAN_OUT, EMBEDDINGS, CHAT = "predict", "fan-out", "embeddings", "chat"
# Adapters in one fan-out request.
_FAN = 4
_SCORES = {"top_k": None}

Judge = Callable[[Any, float, float], AnswerJudgement]


@dataclass(frozen=True)
class LoadRequest:
    """A body for a path. `judge` takes the parsed answer and the times of request and answer.

    If the answer `streams`, `judge` takes a ChatAnswer, and the time of its first token.
    """

    kind: str
    path: str
    body: bytes
    inputs: int
    judge: Judge
    streams: bool = False


@dataclass(frozen=True)
class JudgedResponse:
    """The verdict on a response, the time of its end, and the figures in it.

    `queue_ms` and `inference_ms` are its timings. `first` is the time of its first token, and `tokens` their
    number, if it is a stream.
    """

    judgement: AnswerJudgement
    end: float
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    first: float | None = None
    tokens: int = 0


class TrafficMix:
    """Requests by the weight of their kind, each for the adapter that is next by popularity."""

    def __init__(
        self,
        oracle: Oracle,
        ledger: Ledger,
        names: Sequence[str],
        popularity: str,
        mix: Mapping[str, float],
        inputs: int = 1,
        seed: int = 0,
    ) -> None:
        self._oracle = oracle
        self._ledger = ledger
        self._names = choose(names, popularity, seed)
        self._kinds, self._weights = list(mix), list(mix.values())
        self._inputs = inputs
        self._generator = random.Random(seed)  # noqa: S311 - traffic, not secrets
        self._makers = {
            PREDICT: self._predict,
            FAN_OUT: self._fan_out,
            EMBEDDINGS: self._embeddings,
            CHAT: self._chat,
        }
        self._texts: dict[str, Iterator[int]] = {}

    def next(self) -> LoadRequest:
        """Return the next request."""
        return self._makers[self._generator.choices(self._kinds, self._weights)[0]]()

    def _predict(self) -> LoadRequest:
        name = next(self._names)
        texts = [self._text(name) for _ in range(self._inputs)]

        def judge(answer: Any, start: float, end: float) -> AnswerJudgement:
            return of_prediction(answer, name, texts, self._ledger.live(name, start, end), self._oracle)

        body = {"model": name, "inputs": [self._oracle.texts[i] for i in texts], "parameters": _SCORES}
        return LoadRequest(PREDICT, "/v1/predict", json.dumps(body).encode(), len(texts), judge)

    def _fan_out(self) -> LoadRequest:
        names = list(dict.fromkeys(next(self._names) for _ in range(_FAN)))
        known = set.intersection(*(set(self._known(name)) for name in names))
        text = self._generator.choice(sorted(known)) if known else self._text(names[0])

        def judge(answer: Any, start: float, end: float) -> AnswerJudgement:
            results = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(results, list) or len(results) != len(names):
                return AnswerJudgement(Verdict.FAILED, "fan-out: not one result for each model")
            return worst(
                [
                    of_prediction(one, name, [text], self._ledger.live(name, start, end), self._oracle)
                    for one, name in zip(results, names, strict=True)
                ]
            )

        body = {"models": names, "inputs": self._oracle.texts[text], "parameters": _SCORES}
        return LoadRequest(FAN_OUT, "/v1/predict", json.dumps(body).encode(), len(names), judge)

    def _embeddings(self) -> LoadRequest:
        text = self._generator.randrange(len(self._oracle.embeddings))
        body = {"model": "foundation", "input": self._oracle.texts[text]}

        def judge(answer: Any, start: float, end: float) -> AnswerJudgement:
            return of_embedding(answer, text, self._oracle)

        return LoadRequest(EMBEDDINGS, "/v1/embeddings", json.dumps(body).encode(), 1, judge)

    def _chat(self) -> LoadRequest:
        name = next(self._names)
        text = self._text(name)

        def judge(answer: Any, start: float, end: float) -> AnswerJudgement:
            return of_chat(answer, name, text, self._ledger.live(name, start, end), self._oracle)

        body = {
            "model": name,
            "messages": [{"role": "user", "content": self._oracle.texts[text]}],
            "max_tokens": self._oracle.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return LoadRequest(CHAT, "/v1/chat/completions", json.dumps(body).encode(), 1, judge, streams=True)

    def _text(self, name: str) -> int:
        """Return the next of the texts whose answers are known for a name's live version."""
        if name not in self._texts:
            self._texts[name] = cycle(self._known(name) or range(len(self._oracle.texts)))
        return next(self._texts[name])

    def _known(self, name: str) -> list[int]:
        return self._oracle.versions[self._ledger.latest(name)].known


def judge_response(
    request: LoadRequest, status: int, retry_after: str | None, content: bytes, start: float, end: float
) -> JudgedResponse:
    """Return the verdict on a response that came whole."""
    by_status = of_status(status, retry_after)
    if by_status is not None:
        return JudgedResponse(by_status, end)
    try:
        answer = json.loads(content)
    except ValueError:
        return JudgedResponse(AnswerJudgement(Verdict.FAILED, "the answer is not JSON"), end)
    return JudgedResponse(request.judge(answer, start, end), end, *_timings(answer))


def judge_stream(request: LoadRequest, body: LineSource, start: float) -> JudgedResponse:
    """Read a stream to its end and return the verdict on it.

    The server resolves a reference before the first token, so a version must have been live until then.
    """
    try:
        answer = chat_answer(list(events_of(body)))
    except BrokenStream as fault:
        return JudgedResponse(AnswerJudgement(Verdict.FAILED, str(fault)), time.monotonic())
    judgement = request.judge(answer, start, answer.first)
    return JudgedResponse(judgement, answer.end, first=answer.first, tokens=answer.tokens)


def _timings(answer: Any) -> tuple[float, float]:
    """Return the queue and inference milliseconds; of a fan-out the slowest's."""
    answers = answer.get("results", [answer]) if isinstance(answer, dict) else []
    timings = [one["timings"] for one in answers if isinstance(one, dict) and "timings" in one]
    if not timings:
        return 0.0, 0.0
    return max(one["queue_ms"] for one in timings), max(one["inference_ms"] for one in timings)

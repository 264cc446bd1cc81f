"""The answers to a chat, whole or in a stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from rootstock.service.api.composed_fields import AnsweredParts
from rootstock.service.api.openai.answers import (
    AnswerParts,
    CollectedAnswer,
    CompletionUsage,
    token_bytes,
    usage_of_stream,
)
from rootstock.service.api.openai.tool_calls import ToolCall, ToolCallDelta, ToolCallText, split_calls
from rootstock.service.engine.generate.stream import AnswerTokens, TextPiece, TextStream
from rootstock.service.engine.generate.token_sampler import FinishReason, TokenChoice

ChatFinish = Literal["stop", "length", "tool_calls"]


class TopLogprob(BaseModel):
    """A token that could have been chosen, with its log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of the answer, with its log-probability and the most likely tokens in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """The log-probabilities of an answer's tokens."""

    content: list[TokenLogprob]


class AnswerMessage(BaseModel):
    """The assistant's message. `content` is null if it only calls tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: Annotated[list[ToolCall], Field(exclude_if=lambda calls: not calls)]


class ChatChoice(BaseModel):
    """One answer. `finish_reason` says why it ended.

    It ended by itself or at a stop string (`stop`), after calls of tools (`tool_calls`), or at the limit of
    tokens (`length`).
    """

    index: int
    message: AnswerMessage
    finish_reason: ChatFinish
    logprobs: ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    """The answers to a chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    version: int | None
    digest: str
    adapters: AnsweredParts = None
    choices: list[ChatChoice]
    usage: CompletionUsage


class MessageDelta(BaseModel):
    """The next part of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(BaseModel):
    """The next part of one answer; the last one has the reason of its end."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinish | None


class ChatChunk(BaseModel):
    """One event of a chat's stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    version: int | None
    digest: str
    adapters: AnsweredParts = None
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


@dataclass(frozen=True, slots=True)
class ChatWriter:
    """The writer of the answers to one chat.

    `logprobs` tells whether they report log-probabilities, `tools` whether they may call tools, and `structured`
    whether their text has a structure.
    """

    parts: AnswerParts
    tokens: AnswerTokens
    logprobs: bool
    tools: bool
    structured: bool = False

    def whole(self, answers: Sequence[CollectedAnswer], usage: CompletionUsage) -> ChatCompletion:
        """Return complete answers."""
        choices = [self._whole_choice(i, answer) for i, answer in enumerate(answers)]
        return ChatCompletion(**self.parts._asdict(), choices=choices, usage=usage)

    async def chunks(self, stream: TextStream, with_usage: bool) -> AsyncIterator[BaseModel]:
        """Yield the events of a stream, for `with_usage` with the usage as the last one."""
        begun: set[int] = set()
        calls: dict[int, ToolCallText] = defaultdict(lambda: ToolCallText(self.structured))
        async for piece in stream:
            if piece.index not in begun:
                begun.add(piece.index)
                delta = MessageDelta(role="assistant", content="")
                yield self._chunk(ChunkChoice(index=piece.index, delta=delta, finish_reason=None))
            for choice in self._choices(piece, calls[piece.index]):
                yield self._chunk(choice)
        if with_usage:
            usage = usage_of_stream(stream)
            yield ChatChunk(**self.parts._asdict(), object="chat.completion.chunk", choices=[], usage=usage)

    def _whole_choice(self, index: int, answer: CollectedAnswer) -> ChatChoice:
        content, calls = split_calls(answer.text, self.structured) if self.tools else (answer.text, [])
        message = AnswerMessage(content=None if calls and not content else content, tool_calls=calls)
        logprobs = self._logprobs(answer.choices) if self.logprobs else None
        finish = _finish(answer.finish, bool(calls))
        return ChatChoice(index=index, message=message, finish_reason=finish, logprobs=logprobs)

    def _choices(self, piece: TextPiece, calls: ToolCallText) -> Iterable[ChunkChoice]:
        """Return the next parts of an answer: none if a token completes no text and nothing else is to tell."""
        deltas = [MessageDelta(content=piece.text)] if piece.text else []
        if self.tools:
            parts = [*calls.feed(piece.text), *(() if piece.finish is None else calls.flush())]
            deltas = [
                MessageDelta(content=part) if isinstance(part, str) else MessageDelta(tool_calls=[part])
                for part in parts
            ]
        if not deltas and (self.logprobs or piece.finish is not None):
            deltas = [MessageDelta()]
        choices = [ChunkChoice(index=piece.index, delta=delta, finish_reason=None) for delta in deltas]
        if choices and self.logprobs:
            choices[0].logprobs = self._logprobs([piece.choice])
        if choices and piece.finish is not None:
            choices[-1].finish_reason = _finish(piece.finish, calls.calls > 0)
        return choices

    def _chunk(self, choice: ChunkChoice) -> ChatChunk:
        return ChatChunk(**self.parts._asdict(), object="chat.completion.chunk", choices=[choice])

    def _logprobs(self, choices: Sequence[TokenChoice]) -> ChatLogprobs:
        content = []
        for choice in choices:
            token, data = token_bytes(self.tokens, choice.token)
            top = [
                TopLogprob(token=text, logprob=logprob, bytes=raw)
                for i, logprob in choice.top
                for text, raw in [token_bytes(self.tokens, i)]
            ]
            content.append(TokenLogprob(token=token, logprob=choice.logprob or 0.0, bytes=data, top_logprobs=top))
        return ChatLogprobs(content=content)


def _finish(reason: FinishReason, called: bool) -> ChatFinish:
    return "tool_calls" if called and reason == "stop" else reason

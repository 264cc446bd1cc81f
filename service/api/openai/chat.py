"""The route POST /v1/chat/completions, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.openai.answers import (
    AnswerParts,
    CompletionUsage,
    collect,
    new_parts,
    token_bytes,
    usage_of_stream,
)
from rootstock.service.api.openai.event_stream import EventStream
from rootstock.service.api.openai.sampling_fields import SamplingFields, spelled
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import Chat
from rootstock.service.engine.generate.stream import TextPiece, TextStream
from rootstock.service.engine.generate.token_sampler import TokenChoice

router = APIRouter(route_class=BodyRoute)

# A client may take this much longer to read a stream than its answer may take.
_SLACK_S = 30.0


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: StrictStr


class ChatMessage(Strict):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | Annotated[list[TextPart], Field(min_length=1)]
    name: StrictStr | None = None

    def plain(self) -> dict[str, str]:
        """Return the message as a chat template reads it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatBody(SamplingFields):
    """The body of a chat. The answer is the assistant's next message.

    `max_completion_tokens` is the newer name of `max_tokens`. With `logprobs`, the answer holds the
    log-probability of each token, and of the `top_logprobs` most likely ones.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: StrictInt | None = None
    logprobs: StrictBool = False
    top_logprobs: StrictInt | None = None

    def logprob_count(self) -> int | None:
        """Return how many alternatives to report for each token. Raise InvalidParameter without `logprobs`."""
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParameter("top_logprobs needs logprobs; set logprobs to true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


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
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """One answer. It ended by itself or at a stop string (`stop`), or at the limit of tokens (`length`)."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    """The answers to a chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    version: int | None
    digest: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class MessageDelta(BaseModel):
    """The next part of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The next part of one answer; the last one has the reason of its end."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(BaseModel):
    """One event of a chat's stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    version: int | None
    digest: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


@router.post("/v1/chat/completions", response_model=ChatCompletion)
async def chat_completions(body: ChatBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Answer a chat with a foundation that generates text, or with an adapter on it."""
    engine, target = server_of(request).foundations.generator(body.model)
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    sampling = body.sampling(body.logprob_count(), most)
    chat = Chat([message.plain() for message in body.messages])
    options = options_of(body, request, within, engine.limits.timeout_s)
    async with AsyncExitStack() as held:
        call = held.enter_async_context(engine.generate(body.model, chat, sampling, body.n, options, target))
        with spelled(
            max_tokens="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
            logprobs="top_logprobs",
            stop_ids="stop_token_ids",
            prompt="messages",
            inputs="messages",
        ):
            stream = await while_connected(request, call)
        parts = new_parts("chatcmpl", body.model, stream)
        if body.stream:
            events = _chunks(stream, parts, body, engine)
            return EventStream(events, held.pop_all(), request.url.path, engine.limits.timeout_s + _SLACK_S)
        answers = await while_connected(request, collect(stream, body.n))
        choices = [
            ChatChoice(
                index=i,
                message=AnswerMessage(content=answer.text),
                finish_reason=answer.finish,
                logprobs=_logprobs(answer.choices, engine) if body.logprobs else None,
            )
            for i, answer in enumerate(answers)
        ]
        answer = ChatCompletion(**parts._asdict(), choices=choices, usage=usage_of_stream(stream))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _chunks(
    stream: TextStream, parts: AnswerParts, body: ChatBody, engine: GenerationEngine
) -> AsyncIterator[BaseModel]:
    begun: set[int] = set()
    async for piece in stream:
        if piece.index not in begun:
            begun.add(piece.index)
            delta = MessageDelta(role="assistant", content="")
            yield _chunk(parts, [ChunkChoice(index=piece.index, delta=delta, finish_reason=None)])
        if (choice := _choice(piece, body, engine)) is not None:
            yield _chunk(parts, [choice])
    if body.with_usage:
        yield ChatChunk(
            **parts._asdict(), object="chat.completion.chunk", choices=[], usage=usage_of_stream(stream)
        )


def _chunk(parts: AnswerParts, choices: Sequence[ChunkChoice]) -> ChatChunk:
    return ChatChunk(**parts._asdict(), object="chat.completion.chunk", choices=list(choices))


def _choice(piece: TextPiece, body: ChatBody, engine: GenerationEngine) -> ChunkChoice | None:
    """Return the next part of an answer, or None if a token completes no text and nothing else is to tell."""
    if not piece.text and piece.finish is None and not body.logprobs:
        return None
    delta = MessageDelta(content=piece.text) if piece.text else MessageDelta()
    choice = ChunkChoice(index=piece.index, delta=delta, finish_reason=piece.finish)
    if body.logprobs:
        choice.logprobs = _logprobs([piece.choice], engine)
    return choice


def _logprobs(choices: Sequence[TokenChoice], engine: GenerationEngine) -> ChatLogprobs:
    content = []
    for choice in choices:
        token, data = token_bytes(engine, choice.token)
        top = [
            TopLogprob(token=text, logprob=logprob, bytes=raw)
            for i, logprob in choice.top
            for text, raw in [token_bytes(engine, i)]
        ]
        content.append(TokenLogprob(token=token, logprob=choice.logprob or 0.0, bytes=data, top_logprobs=top))
    return ChatLogprobs(content=content)

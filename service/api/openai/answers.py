"""The parts that the answers of chats and of completions share."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import BaseModel

from rootstock.service.api.composed_fields import AnsweredPart, name_of, parts_of
from rootstock.service.engine.generate.stream import AnswerTokens, TextStream
from rootstock.service.engine.generate.token_sampler import FinishReason, TokenChoice
from rootstock.service.references.composed_model import Asked


class AnswerParts(NamedTuple):
    """The identity of an answer: its id, its creation in Unix seconds, and the model that was asked.

    `version` and `digest` are those that the reference meant. `adapters` are the parts of a composition.
    """

    id: str
    created: int
    model: str
    version: int | None
    digest: str
    adapters: list[AnsweredPart] | None


def new_parts(kind: str, model: Asked, stream: TextStream) -> AnswerParts:
    """Return the identity of a new answer, whose id begins with `kind`."""
    resolved = stream.resolved
    return AnswerParts(
        f"{kind}-{uuid.uuid4().hex}",
        int(time.time()),
        name_of(model),
        resolved.version,
        resolved.digest,
        parts_of(resolved),
    )


class PromptTokensDetails(BaseModel):
    """The number of the prompt's tokens that were copied from an earlier sequence and not computed."""

    cached_tokens: int


class CompletionUsage(BaseModel):
    """The numbers of tokens: of the prompt, of all answers, and of both."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


@dataclass(slots=True)
class CollectedAnswer:
    """A complete answer: its text, its tokens and why it ended."""

    text: str = ""
    choices: list[TokenChoice] = field(default_factory=list)
    finish: FinishReason = "length"


async def collect(stream: TextStream, answers: int) -> list[CollectedAnswer]:
    """Return every answer of a stream once all are complete. Raise the EngineError that ends one early."""
    collected = [CollectedAnswer() for _ in range(answers)]
    async for piece in stream:
        answer = collected[piece.index]
        answer.text += piece.text
        answer.choices.append(piece.choice)
        if piece.finish is not None:
            answer.finish = piece.finish
    return collected


def usage_of_stream(stream: TextStream) -> CompletionUsage:
    """Return the numbers of tokens so far."""
    prompt, completion = stream.prompt_tokens, stream.completion_tokens
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=stream.reused_tokens),
    )


def token_bytes(tokens: AnswerTokens, token: int) -> tuple[str, list[int]]:
    """Return a token's text and its bytes. The text of a part of a character is U+FFFD."""
    data = tokens.bytes_of(token)
    return data.decode("utf-8", "replace"), list(data)

"""The route POST /v1/completions, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.composed_fields import AnsweredParts, asked_of, name_of
from rootstock.service.api.openai.answers import AnswerParts, CompletionUsage, collect, new_parts, usage_of_stream
from rootstock.service.api.openai.event_stream import STREAMED, EventStream
from rootstock.service.api.openai.sampling_fields import SamplingFields, spelled
from rootstock.service.api.options import TimeoutHeader, options_of, sticky_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.generate.stream import AnswerTokens, TextStream
from rootstock.service.engine.generate.token_sampler import TokenChoice

router = APIRouter(route_class=BodyRoute)

# A client may take this much longer to read a stream than its answer may take.
_SLACK_S = 30.0


class CompletionBody(SamplingFields):
    """The body of a completion. `prompt` is a text or its tokens. With `echo`, the answer begins with the prompt.

    `logprobs` is the number of most likely tokens to report for each token.
    """

    prompt: StrictStr | Annotated[list[StrictInt], Field(min_length=1, fail_fast=True)]
    max_tokens: StrictInt | None = 16
    logprobs: StrictInt | None = None
    echo: StrictBool = False


class CompletionLogprobs(BaseModel):
    """The tokens of an answer, their log-probabilities and those of the most likely tokens in their places."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One answer or, in a stream, its next part. `finish_reason` is null until the last part."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The answers to a prompt or, in a stream, the next part of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    version: int | None
    digest: str
    adapters: AnsweredParts = None
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


@router.post("/v1/completions", responses=STREAMED)
async def completions(body: CompletionBody, request: Request, within: TimeoutHeader = None) -> Completion:
    """Continue a text with a foundation that generates text, or with an adapter on it."""
    model = asked_of(body, request)
    engine, target = server_of(request).foundations.generator(model, sticky_of(request))
    sampling = body.sampling(body.logprobs, body.max_tokens)
    grammar = body.structure()
    options = options_of(body, request, within, engine.limits.timeout_s)
    prompt = body.prompt if isinstance(body.prompt, str) else list(body.prompt)
    async with AsyncExitStack() as held:
        call = held.enter_async_context(
            engine.generate(name_of(model), prompt, sampling, body.n, options, target, grammar)
        )
        with spelled(stop_ids="stop_token_ids", inputs="prompt"):
            stream = await while_connected(request, call)
        parts = new_parts("cmpl", model, stream)
        echo = "" if not body.echo else prompt if isinstance(prompt, str) else stream.tokens.text_of(*prompt)
        if body.stream:
            events = _parts(stream, parts, body, echo)
            return EventStream(events, held.pop_all(), request.url.path, engine.limits.timeout_s + _SLACK_S)  # type: ignore[return-value]
        reports, known = body.logprobs is not None, stream.tokens
        choices = [
            CompletionChoice(
                index=i,
                text=echo + answer.text,
                logprobs=_logprobs(answer.choices, known, len(echo)) if reports else None,
                finish_reason=answer.finish,
            )
            for i, answer in enumerate(await while_connected(request, collect(stream, body.n)))
        ]
        answer = Completion(**parts._asdict(), choices=choices, usage=usage_of_stream(stream))
    return Response(answer.model_dump_json(), media_type="application/json")  # type: ignore[return-value]


async def _parts(
    stream: TextStream, parts: AnswerParts, body: CompletionBody, echo: str
) -> AsyncIterator[BaseModel]:
    offsets: dict[int, int] = {}
    async for piece in stream:
        text = piece.text if piece.index in offsets else echo + piece.text
        offset = offsets.setdefault(piece.index, len(echo))
        offsets[piece.index] += len(stream.tokens.text_of(piece.choice.token))
        if text or piece.finish is not None or body.logprobs is not None:
            logprobs = _logprobs([piece.choice], stream.tokens, offset) if body.logprobs is not None else None
            choice = CompletionChoice(index=piece.index, text=text, logprobs=logprobs, finish_reason=piece.finish)
            yield Completion(**parts._asdict(), object="text_completion", choices=[choice])
    if body.with_usage:
        yield Completion(**parts._asdict(), object="text_completion", choices=[], usage=usage_of_stream(stream))


def _logprobs(choices: Sequence[TokenChoice], known: AnswerTokens, offset: int) -> CompletionLogprobs:
    tokens = [known.text_of(choice.token) for choice in choices]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return CompletionLogprobs(
        tokens=tokens,
        token_logprobs=[choice.logprob or 0.0 for choice in choices],
        top_logprobs=[{known.text_of(i): logprob for i, logprob in choice.top} for choice in choices],
        text_offset=offsets,
    )

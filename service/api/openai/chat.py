"""The route POST /v1/chat/completions, in the form of OpenAI's API."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field, StrictBool, StrictInt

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.composed_fields import asked_of, name_of
from rootstock.service.api.openai.answers import collect, new_parts, usage_of_stream
from rootstock.service.api.openai.chat_answer import ChatCompletion, ChatWriter
from rootstock.service.api.openai.chat_message import ChatMessage
from rootstock.service.api.openai.event_stream import STREAMED, EventStream
from rootstock.service.api.openai.sampling_fields import SamplingFields, spelled
from rootstock.service.api.openai.tools import ToolFields
from rootstock.service.api.options import TimeoutHeader, options_of, sticky_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.prompt import Chat

router = APIRouter(route_class=BodyRoute)

# A client may take this much longer to read a stream than its answer may take.
_SLACK_S = 30.0


class ChatBody(ToolFields, SamplingFields):
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


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def chat_completions(body: ChatBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Answer a chat with a foundation that generates text, or with an adapter on it."""
    model = asked_of(body, request)
    engine, target = server_of(request).foundations.generator(model, sticky_of(request))
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    sampling = body.sampling(body.logprob_count(), most)
    tools = body.callable_tools()
    structure = body.structure()
    grammar = body.constrained(tools, structure)
    chat = Chat([message.plain() for message in body.messages], tools)
    options = options_of(body, request, within, engine.limits.timeout_s)
    async with AsyncExitStack() as held:
        call = held.enter_async_context(
            engine.generate(name_of(model), chat, sampling, body.n, options, target, grammar)
        )
        with spelled(
            max_tokens="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
            logprobs="top_logprobs",
            stop_ids="stop_token_ids",
            prompt="messages",
            inputs="messages",
        ):
            stream = await while_connected(request, call)
        parts = new_parts("chatcmpl", model, stream)
        writer = ChatWriter(parts, stream.tokens, body.logprobs, bool(tools), structure is not None)
        if body.stream:
            events = writer.chunks(stream, body.with_usage)
            return EventStream(events, held.pop_all(), request.url.path, engine.limits.timeout_s + _SLACK_S)
        answer = writer.whole(await while_connected(request, collect(stream, body.n)), usage_of_stream(stream))
    return Response(answer.model_dump_json(), media_type="application/json")

"""Tokens of texts and chats in the form of vLLM's API, and the route POST /detokenize.

The route POST /tokenize is in compat/shared_paths.py, because TEI's API has it too.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.openai.chat_message import ChatMessage
from rootstock.service.api.options import sticky_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict, one_of
from rootstock.service.engine.generate.prompt import Chat, check_size

router = APIRouter(route_class=BodyRoute)


class TokenizeBody(Strict):
    """The body of a tokenisation: a text as `prompt`, or the `messages` of a chat.

    `add_special_tokens` asks for the tokens that the tokenizer adds. If it is not set, a text gets them, and a
    chat gets only those of its template. `add_generation_prompt` ends a chat where the assistant's answer begins.
    """

    model_config = ConfigDict(json_schema_extra=one_of(prompt="string", messages="array"))

    model: StrictStr
    prompt: StrictStr | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)] | None = Field(
        None, validate_default=True
    )
    add_special_tokens: StrictBool | None = None
    add_generation_prompt: StrictBool = True
    return_token_strs: StrictBool | None = None

    @field_validator("messages")
    @classmethod
    def _one_of_both(cls, messages: list[ChatMessage] | None, info: ValidationInfo) -> list[ChatMessage] | None:
        """Check this among the fields, not after them, so that one answer names all missing fields."""
        if "prompt" not in info.data or (info.data["prompt"] is None) != (messages is None):
            return messages
        if messages is None:
            raise PydanticCustomError("missing", "Field required", {"field": "prompt"})
        raise ValueError("the body has both prompt and messages; send one of the two")


class Tokens(BaseModel):
    """The ids of the tokens and their number. `token_strs` are their entries in the vocabulary, if asked for.

    `max_model_len` is the longest input of the model in tokens.
    """

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeBody(Strict):
    """The body with the ids of tokens."""

    model: StrictStr
    tokens: Annotated[list[StrictInt], Field(fail_fast=True)]


class Detokenized(BaseModel):
    """The text of the tokens, special ones included."""

    prompt: str


async def tokenize(body: TokenizeBody, request: Request) -> Tokens:
    """Return the tokens of a text or of a chat, for a foundation or for an adapter on it."""
    prompt = Chat([message.plain() for message in body.messages or ()]) if body.prompt is None else body.prompt
    check_size(prompt, "messages" if body.prompt is None else "prompt")
    return await while_connected(request, _tokenized(request, body, prompt))


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> Detokenized:
    """Return the text of tokens, for a foundation or for an adapter on it."""
    return await while_connected(request, _detokenized(request, body))


async def _tokenized(request: Request, body: TokenizeBody, prompt: str | Chat) -> Tokens:
    server = server_of(request)
    host, adapter = await server.foundations.adapter(body.model, sticky_of(request))
    special = body.add_special_tokens
    if isinstance(prompt, Chat) and adapter is not None:
        prompt = prompt.under(adapter.prompting)
        if prompt.template is not None:
            # A template that takes long holds no place among the texts.
            tokenizer = await asyncio.to_thread(host.tokenizer)
            prompt = await tokenizer.render(prompt, prompt.template, body.add_generation_prompt)
            special = special is True

    def read() -> tuple[list[int], list[str] | None]:
        tokenizer = host.tokenizer()
        if isinstance(prompt, str):
            ids = tokenizer.encode(prompt, special is not False)
        else:
            ids = tokenizer.encode_chat(prompt, body.add_generation_prompt, special is True)
        return ids, tokenizer.entries(ids) if body.return_token_strs else None

    async with server.texts:
        ids, entries = await asyncio.to_thread(read)
    return Tokens(count=len(ids), max_model_len=host.max_tokens(adapter), tokens=ids, token_strs=entries)


async def _detokenized(request: Request, body: DetokenizeBody) -> Detokenized:
    server = server_of(request)
    host = server.foundations.directory.host(body.model, sticky_of(request))

    def read() -> str:
        tokenizer = host.tokenizer()
        tokenizer.entries(body.tokens)
        return tokenizer.decode(body.tokens)

    async with server.texts:
        return Detokenized(prompt=await asyncio.to_thread(read))

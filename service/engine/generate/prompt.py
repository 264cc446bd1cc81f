"""Turn a text or a chat into the tokens of a prompt, and tokens back into text while they stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import DecodeStream

from rootstock.adapters.chat_template import ChatTemplate, Message, special_tokens, with_system
from rootstock.adapters.spec import Prompting
from rootstock.adapters.template_process import TemplateFault, TemplateProcess, probe_of, refused_template
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.extended_tokenizer import extended_tokenizer, memory_of_tokens
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.generate.constraint.tool_format import Tool, as_plain_messages, is_hermes
from rootstock.service.engine.generate.token_bytes import TokenBytes


@dataclass(frozen=True, slots=True)
class Chat:
    """The messages of a chat, each with a role and a content, and the tools that the answer may call.

    A message may have `tool_calls` in OpenAI's form, but with arguments as an object. The result of a call is a
    message with the role `tool`. `template` is the chat template of an adapter, or None for the foundation's.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    template: str | None = None

    def with_system(self, text: str | None) -> Chat:
        """Return the chat with this system message first, unless it has one or the text is None."""
        return replace(self, messages=with_system(self.messages, text))

    def under(self, prompting: Prompting) -> Chat:
        """Return the chat with an adapter's system prompt and chat template."""
        return replace(self.with_system(prompting.system_prompt), template=prompting.chat_template)


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token and its place in a text: the characters from `start` to before `stop`, which are its `text`.

    A special token has no place, and its text is its entry in the vocabulary.
    """

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


# A text, the ids of its tokens, or a chat.
Prompt = str | Sequence[int] | Chat

# From this many characters on, other threads run while a text is tokenised. Only a batch lets them.
_LONG = 2**14
# The most characters of a text that a message repeats.
_SHOWN = 80
# The template and the tokenizer read this many characters in about a second.
MAX_PROMPT_CHARACTERS = 2**18


class PromptTokenizer:
    """A foundation's tokenizer with its chat template, read from the foundation's folder.

    The template is rendered as transformers does (`apply_chat_template`), in a sandbox. An adapter's template
    comes from its uploader, so a separate process renders it. `nbytes` is the memory that an adapter's tokens
    take, and 0 for the foundation's own tokenizer.
    """

    nbytes = 0

    def __init__(self, folder: Path, chats: bool = True) -> None:
        """Open the tokenizer, with `chats` also its template. Raise ValueError for an invalid template."""
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._template = ChatTemplate.of(folder) if chats else None
        self._special = special_tokens(folder)
        self._templates = TemplateProcess()
        self._bytes = TokenBytes(self._tokenizer)

    def extended(self, tokens: Sequence[AddedToken], end: str | None = None) -> PromptTokenizer:
        """Return this tokenizer with an adapter's tokens added. `end` is the one that ends its answers, if any.

        Raise Rejected (check "schema") if a token gets another id than it states.
        """
        tokenizer = copy(self)
        tokenizer._tokenizer = extended_tokenizer(self._tokenizer, tokens)
        tokenizer._bytes = TokenBytes(tokenizer._tokenizer)
        tokenizer.nbytes = memory_of_tokens(self._tokenizer, tokens)
        if end is not None:
            tokenizer._special = {**self._special, "eos_token": end}
        return tokenizer

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Return the tokens of a text, with the special tokens that the tokenizer adds if `special`."""
        return self._ids(text, special)

    def encode_chat(self, chat: Chat, reply: bool = True, special: bool = False) -> list[int]:
        """Return the tokens of a chat under the foundation's template.

        With `reply` they include the beginning of the assistant's next message.

        The template describes the tools if it does so in the form of tool_format.py; otherwise the system message
        does. A template writes special tokens itself; with `special` the tokenizer adds its own.

        Raise InvalidInput if the foundation has no chat template, or if its template refuses the messages.
        """
        if self._template is None:
            raise InvalidInput(
                "this model has no chat template, so it takes no messages; send a text as `prompt`, to generate "
                "to /v1/completions",
                "messages",
            )
        messages, tools = _described(chat, self._template.source)
        try:
            text = self._template.text(messages, tools, reply)
        except Exception as error:  # a template can raise anything for messages that it does not expect
            raise InvalidInput(f"the model's chat template refuses the messages: {error}", "messages") from None
        return self._ids(text, special)

    async def render(self, chat: Chat, template: str, reply: bool = True) -> str:
        """Return the text of a chat under the chat template of an adapter.

        Raise InvalidInput if the template refuses the messages or passes a limit of the process.
        """
        messages, tools = _described(chat, template)
        try:
            return await self._templates.render(template, self._special, messages, tools, reply)
        except TemplateFault as fault:
            raise InvalidInput(f"the adapter's chat template refuses the messages: {fault}", "messages") from None

    async def chat_ids(self, chat: Chat) -> list[int]:
        """Return the tokens of a chat under its template, ending where the assistant's next message begins."""
        if chat.template is None:
            return await asyncio.to_thread(self.encode_chat, chat)
        text = await self.render(chat, chat.template)
        return await asyncio.to_thread(self._ids, text, False)

    async def check_template(self, prompting: Prompting) -> None:
        """Raise Rejected (check "template") if an adapter has a chat template that cannot be used."""
        if prompting.chat_template is None:
            return
        try:
            await self._templates.render(prompting.chat_template, self._special, probe_of(prompting))
        except TemplateFault as fault:
            raise refused_template(fault) from None

    def spans(self, text: str, special: bool = True) -> list[TokenSpan]:
        """Return the tokens of a text with their places in it."""
        encoding = self._encoding(text, special)
        parts = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
        return [
            TokenSpan(i, token, True) if special else TokenSpan(i, text[start:stop], False, start, stop)
            for i, token, (start, stop), special in parts
        ]

    def _ids(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self._encoding(text, special).ids
        return ids

    def _encoding(self, text: str, special: bool) -> Encoding:
        if len(text) < _LONG:
            return self._tokenizer.encode(text, add_special_tokens=special)
        return self._tokenizer.encode_batch([text], add_special_tokens=special)[0]

    def to_json(self) -> str:
        """Return the tokenizer as its library writes it to a file."""
        text: str = self._tokenizer.to_str()
        return text

    def decode(self, ids: Sequence[int], special: bool = True) -> str:
        """Return the text of tokens, with the special ones if `special`."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not special)
        return text

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to a text."""
        return self._bytes.of(token)

    def entries(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's entries of tokens. Raise InvalidInput for an id without one."""
        texts = []
        for i in ids:
            text = self._tokenizer.id_to_token(i) if 0 <= i < 2**32 else None
            if text is None:
                raise InvalidInput(
                    f"token id {i} is not in the model's vocabulary; send ids of /tokenize", "tokens"
                )
            texts.append(text)
        return texts

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text that the tokenizer reads as exactly these tokens, special ones included.

        Raise InvalidInput if there is none, as for the ids of most texts under another tokenizer.
        """
        self.entries(ids)
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        if self._ids(text, True) != list(ids):
            raise InvalidInput(
                f"the tokens spell {text[:_SHOWN]!r}, which this model reads as other tokens", "tokens"
            )
        return text

    def stream(self) -> TokenText:
        """Return a decoder for the tokens of one answer."""
        return TokenText(self._tokenizer)


class TokenText:
    """The text of one answer, token by token. A character whose bytes span several tokens comes with the last."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def add(self, token: int) -> str:
        """Return the text that a token completes, which may be empty."""
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except (
            Exception
        ):  # tokenizers raises its base class: bytes that are no character have changed earlier text
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._tokenizer, token) or ""


def _described(chat: Chat, template: str) -> tuple[Sequence[Message], list[dict[str, Any]] | None]:
    """Return the messages and the tools for a template; without tools if the messages describe them."""
    if is_hermes(template):
        return chat.messages, [tool.for_template() for tool in chat.tools] or None
    return as_plain_messages(chat.messages, chat.tools), None


def check_size(prompt: Prompt, param: str = "prompt") -> None:
    """Raise TooLarge, which names the field `param`, for a prompt of too many characters."""
    if (size := characters(prompt)) > MAX_PROMPT_CHARACTERS:
        raise TooLarge(
            f"the prompt has {size} characters and the limit is {MAX_PROMPT_CHARACTERS}; shorten it", param
        )


def characters(prompt: Prompt) -> int:
    """Return the number of characters of a prompt; of token ids, their number."""
    if isinstance(prompt, Chat):
        said = (len(str(m.get("content", ""))) + len(str(m.get("tool_calls", ""))) for m in prompt.messages)
        return sum(said) + sum(len(str(tool.for_template())) for tool in prompt.tools)
    return len(prompt)

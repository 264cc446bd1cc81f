"""Encodes prompts and answers as token ids, as a server does with the same foundation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from rootstock.adapters.chat_template import ChatTemplate, Message, special_tokens, with_system
from rootstock.adapters.language_model import LanguageModel, Seq2SeqLM
from rootstock.adapters.spec import Prompting
from rootstock.adapters.template_process import TemplateFault, TemplateProcess, probe_of
from rootstock.training.data.text_pairs import PromptPair
from rootstock.training.errors import DataError, RecipeError


@dataclass(frozen=True)
class CompletionRow:
    """The tokens of a prompt, and those of the answer with the token that ends it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    @property
    def context(self) -> int:
        """The number of tokens that a limit in tokens bounds."""
        return len(self)


class SourceRow(CompletionRow):
    """The tokens of a source text, which an encoder reads, and those of its target."""

    @property
    def context(self) -> int:
        """The number of tokens of the longer text, because the limit holds for each of the two."""
        return max(len(self.prompt), len(self.answer))


class PromptEncoder(ABC):
    """A foundation's tokenizer, and the form in which the foundation reads a prompt.

    `context` states how a prompt and its answer share the foundation's limit in tokens: "together" or "each".
    """

    context: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @abstractmethod
    def text(self, messages: Sequence[Message], where: str) -> str:
        """Return the text of the prompt for a chat. Raise DataError for messages that have none."""

    @abstractmethod
    def row(self, messages: Sequence[Message], answer: str, where: str) -> CompletionRow:
        """Return the tokens of a prompt and of its answer."""

    @abstractmethod
    def room(self, prompt: int, limit: int) -> int:
        """Return how many tokens an answer may have after a prompt of `prompt` tokens; at most 0 for none."""

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a plain text, with the special tokens that the tokenizer adds."""
        return tuple(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of an answer's tokens, without special tokens and spaces at its ends."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()


class IsolatedTemplate:
    """The chat template of an adapter on a foundation, rendered as a server does, within the same limits."""

    def __init__(self, source: str, folder: Path) -> None:
        self._source = source
        self._special = special_tokens(folder)
        self._templates = TemplateProcess()

    def text(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat with the beginning of the answer. Raise TemplateFault if there is none."""
        return self._templates.text(self._source, self._special, messages)


class ChatEncoder(PromptEncoder):
    """The tokenizer and the chat template of a foundation, with an adapter's prompting and earlier turns.

    `stop_id` ends every answer. `shots` are pairs that stand before each chat as turns. Raise RecipeError, which
    begins with `origin`, if there is no chat template, or if a server would refuse the adapter's.
    """

    context = "together"

    def __init__(
        self,
        folder: Path,
        stop_id: int,
        prompting: Prompting,
        origin: str,
        shots: Sequence[PromptPair] = (),
    ) -> None:
        super().__init__(folder)
        self._template = _template_of(folder, prompting, origin)
        self._stop_id = stop_id
        self.system_prompt = prompting.system_prompt
        turns = [message for pair in shots for message in _turns(pair)]
        self._turns: list[Message] = turns

    def text(self, messages: Sequence[Message], where: str) -> str:
        """Return the text of the prompt for a chat. Raise DataError if the template refuses the messages."""
        chat = list(with_system(messages, self.system_prompt))
        at = 1 if chat and chat[0]["role"] == "system" else 0
        chat[at:at] = self._turns
        try:
            return self._template.text(chat)
        except Exception as error:  # a template can raise anything for messages that it does not expect
            raise DataError(f"{where}: the chat template refuses the messages: {error}") from None

    def prompt(self, messages: Sequence[Message], where: str) -> tuple[int, ...]:
        """Return the tokens of the prompt for a chat."""
        return tuple(self._tokenizer.encode(self.text(messages, where), add_special_tokens=False).ids)

    def row(self, messages: Sequence[Message], answer: str, where: str) -> CompletionRow:
        """Return the tokens of a prompt and of its answer."""
        ids = self._tokenizer.encode(answer, add_special_tokens=False).ids
        return CompletionRow(self.prompt(messages, where), (*ids, self._stop_id))

    def room(self, prompt: int, limit: int) -> int:
        """Return how many tokens an answer may have after a prompt, with which it shares the context."""
        return limit - prompt


class SourceEncoder(PromptEncoder):
    """The tokenizer of an encoder–decoder foundation, with earlier texts and their answers.

    `shots` are pairs that stand before each text, with their answers, as paragraphs. A target begins with the
    token that the checkpoint forces at the beginning of an answer. Without one it begins with the special tokens
    that the tokenizer puts there.
    """

    context = "each"

    def __init__(self, folder: Path, language: Seq2SeqLM, shots: Sequence[PromptPair] = ()) -> None:
        super().__init__(folder)
        self._language = language
        paragraphs = [f"{only_text(pair.messages, pair.where)}\n{pair.answer}\n\n" for pair in shots]
        self._shots = "".join(paragraphs)

    def text(self, messages: Sequence[Message], where: str) -> str:
        """Return the text that the encoder reads. Raise DataError for messages that are not one of the user."""
        return self._shots + only_text(messages, where)

    def row(self, messages: Sequence[Message], answer: str, where: str) -> SourceRow:
        """Return the tokens of a text and of its target."""
        encoding = self._tokenizer.encode(answer)
        ids = self._tokenizer.encode(answer, add_special_tokens=False).ids
        special = takewhile(lambda at: at[1], zip(encoding.ids, encoding.special_tokens_mask, strict=True))
        first = self._language.rules.first
        begin = [token for token, _ in special] if first is None else [first]
        return SourceRow(self.plain(self.text(messages, where)), (*begin, *ids, self._language.stop_ids[0]))

    def room(self, prompt: int, limit: int) -> int:
        """Return how many tokens an answer may have. The token before it counts as one of its context."""
        return limit - 1 if prompt <= limit else 0


def encoder_of(
    folder: Path,
    language: LanguageModel,
    prompting: Prompting,
    origin: str,
    shots: Sequence[PromptPair] = (),
) -> PromptEncoder:
    """Return the encoder of a foundation's prompts. Raise RecipeError as ChatEncoder does."""
    if isinstance(language, Seq2SeqLM):
        return SourceEncoder(folder, language, shots)
    return ChatEncoder(folder, language.stop_ids[0], prompting, origin, shots)


def only_text(messages: Sequence[Message], where: str) -> str:
    """Return the text of a chat of one message. Raise DataError for another chat."""
    if [message["role"] for message in messages] != ["user"]:
        raise DataError(
            f"{where}: a chat of {len(messages)} messages before the answer; an encoder–decoder foundation reads "
            "one text; leave one message, the user's"
        )
    text: str = messages[0]["content"]
    return text


def _turns(pair: PromptPair) -> list[Message]:
    messages = [message for message in pair.messages if message["role"] != "system"]
    return [*messages, {"role": "assistant", "content": pair.answer}]


def _template_of(folder: Path, prompting: Prompting, origin: str) -> ChatTemplate | IsolatedTemplate:
    if prompting.chat_template is not None:
        template = IsolatedTemplate(prompting.chat_template, folder)
        try:
            template.text(probe_of(prompting))
        except TemplateFault as fault:
            problem = f"it renders no chat of one user's message: {fault}"
            raise RecipeError(f"{origin}: prompts.chat_template: {problem}; correct the template") from None
        return template
    foundation = ChatTemplate.of(folder)
    if foundation is None:
        raise RecipeError(
            f"{origin}: base_model: {folder.name} has no chat template; choose a foundation with one, such as "
            "chat, or state one as prompts.chat_template"
        )
    return foundation

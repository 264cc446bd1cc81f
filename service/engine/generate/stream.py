"""Hand the tokens of a call's answers to the event loop, as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sequence import Step, TextSequence
from rootstock.service.engine.generate.stop_strings import StopStrings
from rootstock.service.engine.generate.token_sampler import FinishReason, TokenChoice


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of answer `index`: the text, perhaps empty, that a token adds, and the reason if it is the last.

    `choice` is the token.
    """

    index: int
    text: str
    choice: TokenChoice
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The tokens of one adapter's answers: its tokenizer, and the ids that end an answer."""

    tokenizer: PromptTokenizer
    stop_ids: tuple[int, ...]

    def ends(self, token: int) -> bool:
        """Tell whether a token ends a text by itself."""
        return token in self.stop_ids

    def text_of(self, *tokens: int) -> str:
        """Return the text of tokens, special ones included."""
        return self.tokenizer.decode(tokens)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to a text, which may be a part of a character."""
        return self.tokenizer.bytes_of(token)


class TextStream:
    """The answers of a call, piece by piece as they are decoded. Iterate over it once.

    The iteration ends after every answer's last piece, and raises the EngineError that ends an answer early.
    """

    def __init__(
        self,
        resolved: ResolvedReference,
        prompt_tokens: int,
        tokens: AnswerTokens,
        answers: int,
        stops: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        self.resolved = resolved
        self.prompt_tokens = prompt_tokens
        self.tokens = tokens
        self.sequences: Sequence[TextSequence] = ()
        # The tokens of the pieces so far. A sequence may have decoded more, after a stop string.
        self.completion_tokens = 0
        # The time of the first piece on the engine's clock, and the error that ended the stream.
        self.first: float | None = None
        self.error: EngineError | None = None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Step | EngineError]] = asyncio.Queue()
        self._texts = [tokens.tokenizer.stream() for _ in range(answers)]
        self._stops = [StopStrings(stops) if stops else None for _ in range(answers)]

    @property
    def reused_tokens(self) -> int:
        """Return how many tokens of the prompt were copied instead of computed, for the first answer."""
        return self.sequences[0].reused if self.sequences else 0

    def receiver(self, index: int) -> Callable[[Step | EngineError], None]:
        """Return the function through which the decoding thread delivers the steps of an answer."""

        def receive(event: Step | EngineError) -> None:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        return receive

    def fail(self, error: EngineError) -> None:
        """End the stream with an error. Call it on the event loop."""
        self._events.put_nowait((0, error))

    def fail_from_thread(self, error: EngineError) -> None:
        """End the stream with an error. Any thread may call it."""
        self._loop.call_soon_threadsafe(self.fail, error)

    def leave(self) -> None:
        """Note that nobody waits for the answers any more."""
        for sequence in self.sequences:
            sequence.left = True

    async def __aiter__(self) -> AsyncIterator[TextPiece]:
        unfinished = set(range(len(self._texts)))
        while unfinished:
            index, event = await self._events.get()
            if isinstance(event, EngineError):
                self.error = event
                raise event
            if index not in unfinished:
                continue
            self.completion_tokens += 1
            if self.first is None:
                self.first = self._clock()
            piece = self._piece(index, event)
            if piece.finish is not None:
                unfinished.discard(index)
                self.sequences[index].left = True
            yield piece

    def _piece(self, index: int, step: Step) -> TextPiece:
        choice, finish = step.choice, step.finish
        text = "" if step.is_end else self._texts[index].add(choice.token)
        stops = self._stops[index]
        if stops is not None:
            text, met = stops.feed(text)
            if met:
                return TextPiece(index, text, choice, "stop")
            if finish is not None:
                text += stops.flush()
        return TextPiece(index, text, choice, finish)

"""Compile grammars for a foundation's vocabulary, with llguidance."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.constraint.grammar import Grammar
from rootstock.service.engine.generate.constraint.token_constraint import Mask, TokenConstraint

if TYPE_CHECKING:
    import llguidance

# llguidance recurses up to 1 kB of stack for each character of a schema. A thread's usual 8 MiB would not do, and
# a thread that exceeds its stack ends the process. Only the part that is used takes memory.
_STACK_BYTES = 512 * 2**20
# A state of the lexer takes 1 to 2 kB, for each sequence.
_MOST_LEXER_STATES = 10_000
_MOST_STEP_ITEMS = 20_000
_MOST_STEP_FUEL = _MOST_INITIAL_FUEL = 100_000
# The time of a mask grows with the square of these.
_MOST_ROW_ITEMS = 256
_MOST_REASON = 160
_EXCERPT = re.compile(r"\n *\d+ \| .*", re.DOTALL)


class GrammarCompiler:
    """A compiler of grammars for one vocabulary, one after another, each in a thread that ends with the process.

    The tables of the vocabulary are made for the first grammar.
    """

    def __init__(self, tokenizer: Callable[[], str], vocabulary: int, end_ids: Sequence[int]) -> None:
        """Take the tokenizer as JSON of the tokenizers library, the number of logits, and the model's ends."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = [token for token in end_ids if token < vocabulary]
        self._free = asyncio.Lock()
        self._tokens: llguidance.LLTokenizer | None = None

    async def compile(self, grammar: Grammar, count: int, ignore_ends: bool = False) -> list[TokenConstraint]:
        """Return constraints for `count` sequences. Raise InvalidParameter for a grammar that is not valid.

        With `ignore_ends`, the model's ends are allowed only where nothing else is.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        compiled: asyncio.Future[list[TokenConstraint]] = loop.create_future()

        def work() -> None:
            result: list[TokenConstraint] | Exception
            try:
                result = self._constraints(grammar, count, ignore_ends)
            except Exception as error:  # the caller gets it
                result = error
            # The loop may be closed by the end of a long compilation.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hand_over, compiled, result)

        _start_deep_thread(work)
        return await compiled

    def _hand_over(
        self, compiled: asyncio.Future[list[TokenConstraint]], result: list[TokenConstraint] | Exception
    ) -> None:
        self._free.release()
        if compiled.cancelled():
            return
        if isinstance(result, Exception):
            compiled.set_exception(result)
        else:
            compiled.set_result(result)

    def _constraints(self, grammar: Grammar, count: int, ignore_ends: bool) -> list[TokenConstraint]:
        try:
            matcher = self._matcher(grammar)
        except InvalidParameter:
            for part in grammar.parts:
                self._matcher(part)
            raise
        copies = [matcher, *(matcher.deep_copy() for _ in range(count - 1))]
        ends = np.array(self._end_ids if ignore_ends else [], dtype=np.intp)
        return [GrammarConstraint(copy, self._vocabulary, grammar.param, ends) for copy in copies]

    def _matcher(self, grammar: Grammar) -> llguidance.LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(
            max_lexer_states=_MOST_LEXER_STATES,
            step_max_items=_MOST_STEP_ITEMS,
            step_lexer_fuel=_MOST_STEP_FUEL,
            initial_lexer_fuel=_MOST_INITIAL_FUEL,
            max_items_in_row=_MOST_ROW_ITEMS,
            verbose_errors=False,
        )
        text = LLMatcher.grammar_from_lark(grammar.text)
        matcher = LLMatcher(self._vocabulary_tables(grammar.param), text, log_level=0, limits=limits)
        if not matcher.is_error():
            # Some faults show only with the first mask, such as a schema that refers to itself alone. Some costs
            # show only with the first token, and there they would delay other sequences.
            mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            if not matcher.is_error() and mask.any():
                first = matcher.deep_copy()
                first.consume_token(int(mask.argmax()))
                matcher = first if first.is_error() else matcher
        if matcher.is_error():
            reason = _reason(matcher.get_error())
            raise InvalidParameter(f"{grammar.param} cannot be compiled: {reason}; change it", grammar.param)
        return matcher

    def _vocabulary_tables(self, param: str) -> llguidance.LLTokenizer:
        from llguidance import LLTokenizer

        if self._tokens is None:
            try:
                self._tokens = LLTokenizer(
                    self._tokenizer(), n_vocab=self._vocabulary, eos_token=list(self._end_ids)
                )
            except ValueError as error:
                message = (
                    f"{param} cannot be used: this model's tokenizer fits no grammar ({error}); leave it out"
                )
                raise InvalidParameter(message, param) from None
        return self._tokens


class GrammarConstraint:
    """The state of one sequence under a compiled grammar. It is a TokenConstraint.

    The tokens `avoided` are allowed only where no other one is.
    """

    def __init__(
        self, matcher: llguidance.LLMatcher, vocabulary: int, param: str, avoided: npt.NDArray[np.intp]
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._param = param
        self._avoided = avoided

    @property
    def ended(self) -> bool:
        return self._matcher.is_stopped()

    def allowed(self) -> Mask:
        """Return the mask. Raise InvalidParameter if the grammar takes too many states here."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_)
        if np.count_nonzero(mask) > np.count_nonzero(mask[self._avoided]):
            mask[self._avoided] = False
        return mask

    def accept(self, token: int) -> None:
        """Take the next token. Raise InvalidParameter if the grammar takes too many states here."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _reason(self._matcher.get_error())
            message = f"the answer cannot follow {self._param} further: {reason}; state it in a simpler way"
            raise InvalidParameter(message, self._param)


def _start_deep_thread(work: Callable[[], None]) -> None:
    """Start a thread with a deep stack, which does not keep the process from ending."""
    before = threading.stack_size(_STACK_BYTES)
    try:
        threading.Thread(target=work, name="rootstock-grammar", daemon=True).start()
    finally:
        threading.stack_size(before)


def _reason(message: str) -> str:
    """Return the library's message in one line, without what it quotes of the grammar."""
    text = " ".join(_EXCERPT.sub("", message).replace("<non-verbose/>", "").split())
    text = re.sub(r"^at \d+\(\d+\): ", "", text).removeprefix("failed to compile JSON schema: ")
    return text if len(text) <= 2 * _MOST_REASON else f"{text[:_MOST_REASON]} … {text[-_MOST_REASON:]}"

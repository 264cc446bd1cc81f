"""Fit a request to one language model: its tokens, its options and the sampler of each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rootstock.adapters.language_model import LanguageModel
from rootstock.adapters.spec import Adapter, FoundationSpec
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge, TooLong
from rootstock.service.engine.generate.constraint.forced_tokens import ForcedTokens
from rootstock.service.engine.generate.constraint.grammar import Grammar
from rootstock.service.engine.generate.constraint.rule_constraint import RuleConstraint
from rootstock.service.engine.generate.constraint.token_constraint import TokenConstraint
from rootstock.service.engine.generate.constraint.wider_mask import WiderMask
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.token_sampler import TokenSampler

# The limit of the answers of a call, by estimates of a token and of a token's log-probability in JSON.
_MOST_ANSWER_BYTES = 32 * 2**20
_TOKEN_BYTES, _LOGPROB_BYTES = 16, 128


class AnswerForm:
    """The form of the answers of one foundation, with a decoder alone or with an encoder before it."""

    def __init__(self, spec: FoundationSpec, language: LanguageModel, capacity: int) -> None:
        """Take the tokens that the decoder's cache holds as `capacity`."""
        self.vocabulary = language.vocabulary
        self.stop_ids = language.stop_ids
        self._seq2seq = spec.seq2seq_lm
        self._capacity = capacity

    @property
    def rewrites(self) -> bool:
        """Tell whether an encoder reads the prompt and the answer is a new text."""
        return self._seq2seq is not None

    def vocabulary_of(self, adapter: Adapter) -> int:
        """Return the number of tokens that an adapter's answers are chosen from: some add tokens."""
        outputs = adapter.weights.outputs
        return self.vocabulary if outputs is None else outputs.vocabulary

    def stop_ids_of(self, adapter: Adapter) -> tuple[int, ...]:
        """Return the tokens that end an adapter's answers: the foundation's, and the one that it brings."""
        return (*self.stop_ids, *self._own_ends(adapter))

    def _own_ends(self, adapter: Adapter) -> list[int]:
        end = adapter.prompting.end_token
        added = [token.id for token in adapter.preprocessing.tokens or () if token.content == end]
        return [token for token in added if token not in self.stop_ids]

    def split(self, ids: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Return the tokens of a prompt that an encoder reads, and those that the decoder continues."""
        return ((), ids) if self._seq2seq is None else (ids, (self._seq2seq.start_id,))

    def check_grammar(self, grammar: Grammar) -> None:
        """Raise InvalidParameter if answers follow a checkpoint's rules, which a grammar may contradict."""
        if self.rewrites:
            raise InvalidParameter(
                f"{grammar.param} does not work with this model, because it has an encoder; leave it out",
                grammar.param,
            )

    def sampler(
        self,
        sampling: SamplingOptions,
        start: Sequence[int],
        adapter: Adapter,
        constraint: TokenConstraint | None = None,
    ) -> TokenSampler:
        """Return the sampler of one answer after the decoder's tokens `start`."""
        if self._seq2seq is not None:
            rules, ends = self._seq2seq.rules, self._seq2seq.stop_ids
            constraint = RuleConstraint(rules, ends, self.vocabulary, start, sampling.max_tokens)
        vocabulary, own = self.vocabulary_of(adapter), self._own_ends(adapter)
        # Forced tokens are of the adapter's whole vocabulary already.
        if not (constraint is None or isinstance(constraint, ForcedTokens)) and (
            own or vocabulary > self.vocabulary
        ):
            constraint = WiderMask(constraint, self.stop_ids, own, vocabulary)
        return TokenSampler(sampling, start, self.stop_ids_of(adapter), vocabulary, constraint)

    def fit(
        self,
        source: Sequence[int],
        start: Sequence[int],
        adapter: Adapter,
        sampling: SamplingOptions,
        answers: int,
    ) -> SamplingOptions:
        """Return the options with `max_tokens` cut to the room that the prompt leaves in the context.

        An encoder–decoder model has a context for the source and one for the answer. Raise TooLong for a prompt
        without room for a token, and TooLarge for answers that may be too large.
        """
        ids, most_tokens = start if self._seq2seq is None else source, adapter.preprocessing.max_length
        if not ids:
            raise InvalidInput("the prompt is empty; give a text of at least one token", "prompt")
        vocabulary = self.vocabulary_of(adapter)
        sampling.check_ids(vocabulary)
        if wrong := [token for token in (min(ids), max(ids)) if not 0 <= token < vocabulary]:
            raise InvalidInput(
                f"token id {wrong[-1]}; the vocabulary has ids from 0 to {vocabulary - 1}; send only such ids",
                "prompt",
            )
        context = min(most_tokens, self._capacity - len(source))
        if len(source) > most_tokens:
            raise TooLong(f"the prompt has {len(ids)} tokens; the limit is {most_tokens}; shorten it", "prompt")
        if len(start) >= context:
            limit, needed = min(most_tokens, self._capacity), 1 if self._seq2seq is None else 1 + len(start)
            raise TooLong(
                f"the prompt has {len(ids)} tokens; the context holds {limit}, of which the answer needs at "
                f"least {needed}; shorten the prompt",
                "prompt",
            )
        room = context - len(start)
        most = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        reported = 0 if sampling.logprobs is None else 1 + sampling.logprobs
        if answers * most * (_TOKEN_BYTES + _LOGPROB_BYTES * reported) > _MOST_ANSWER_BYTES:
            raise TooLarge(
                f"{answers} answers of up to {most} tokens with {reported} log-probabilities each may take more "
                f"than {_MOST_ANSWER_BYTES >> 20} MiB; ask for fewer tokens, answers or log-probabilities",
                "max_tokens",
            )
        return self._ruled(replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most)), most)

    def _ruled(self, sampling: SamplingOptions, most: int) -> SamplingOptions:
        """Return options that leave the tokens which the checkpoint's rules force.

        Raise InvalidParameter for an end of the answer at its first token, which `min_tokens` excludes.
        """
        rules = None if self._seq2seq is None else self._seq2seq.rules
        if rules is None or not sampling.min_tokens:
            return sampling
        if rules.first in {*sampling.stop_ids, *self.stop_ids}:
            raise InvalidParameter(
                f"min_tokens is {sampling.min_tokens}, but token {rules.first}, with which every answer of this "
                "model begins, ends it; leave out min_tokens, or do not stop at this token",
                "min_tokens",
            )
        return (
            sampling if rules.last is None else replace(sampling, min_tokens=min(sampling.min_tokens, most - 1))
        )

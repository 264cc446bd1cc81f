"""Define how the tokens of a sequence are chosen and what ends it, with the limits of each option."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rootstock.service.engine.core.errors import InvalidParameter

_MOST_STOPS = 16
_MOST_STOP_CHARACTERS = 256
_MOST_BIASES = 1024
_MOST_BIAS = 100
# More tokens than any context holds and any vocabulary has.
_MOST_TOKENS = 2**31 - 1


class _Bounds(NamedTuple):
    """The least and the largest value of an option, and what its message says to the sender of another value."""

    least: float
    most: float
    expected: str


_BOUNDS = {
    "temperature": _Bounds(0, 2, "a number from 0 to 2; 0 always takes the most likely token"),
    "top_p": _Bounds(math.ulp(0.0), 1, "a number above 0 and at most 1; 1 keeps every token"),
    "top_k": _Bounds(-1, _MOST_TOKENS, f"a number from -1 to {_MOST_TOKENS}; 0 and -1 keep every token"),
    "min_p": _Bounds(0, 1, "a number from 0 to 1; 0 keeps every token"),
    # In a wider range, a product with a logit could leave the range of float32.
    "repetition_penalty": _Bounds(0.01, 100, "a number from 0.01 to 100; 1 switches it off"),
    "presence_penalty": _Bounds(-2, 2, "a number from -2 to 2; 0 switches it off"),
    "frequency_penalty": _Bounds(-2, 2, "a number from -2 to 2; 0 switches it off"),
    "seed": _Bounds(-(2**63), 2**63 - 1, "a whole number of 64 bits with sign; leave it out for chance"),
    "logprobs": _Bounds(0, 20, "a number from 0 to 20; leave it out for no log probabilities"),
    "max_tokens": _Bounds(1, _MOST_TOKENS, f"a number from 1 to {_MOST_TOKENS}; leave it out for all that fit"),
    "min_tokens": _Bounds(0, _MOST_TOKENS, f"a number from 0 to {_MOST_TOKENS}; 0 sets no minimum"),
}


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """The options of one sequence, with the names and meanings of OpenAI's API or, where it has none, of vLLM's.

    A temperature of 0 is greedy: it takes the most likely token. `top_k` is off at 0 and -1. `logprobs` is the
    number of alternatives to report for each token; at 0 only the chosen token's log probability is reported,
    and at None no log probability. `max_tokens` None leaves the limit to the context's length. The sequence ends
    at one of the `stop` strings, at a token of `stop_ids` or, unless `ignore_eos`, at the model's own end.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False

    def check(self) -> None:
        """Raise InvalidParameter, with the option's name as `param`, for a value outside its limits.

        `check_ids` checks the ids of tokens, which differ between adapters.
        """
        for name, bounds in _BOUNDS.items():
            _check_number(name, getattr(self, name), bounds)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            message = f"min_tokens is {self.min_tokens}, above max_tokens ({self.max_tokens}); lower it"
            raise InvalidParameter(message, "min_tokens")
        if len(self.logit_bias) > _MOST_BIASES:
            message = f"logit_bias has {len(self.logit_bias)} tokens; the limit is {_MOST_BIASES}; leave some out"
            raise InvalidParameter(message, "logit_bias")
        for token, bias in self.logit_bias.items():
            if not -_MOST_BIAS <= bias <= _MOST_BIAS:
                raise InvalidParameter(
                    f"the logit_bias of token {token} is {bias!r}; expected a number from {-_MOST_BIAS} to"
                    f" {_MOST_BIAS}; 0 leaves the token as it is",
                    "logit_bias",
                )
        self._check_stop()

    def check_ids(self, vocabulary: int) -> None:
        """Raise InvalidParameter for an id of a token that is not among the `vocabulary` that the model knows."""
        _check_ids("logit_bias", self.logit_bias, vocabulary)
        _check_ids("stop_ids", self.stop_ids, vocabulary)

    def _check_stop(self) -> None:
        if len(self.stop) > _MOST_STOPS:
            message = f"stop has {len(self.stop)} strings; the limit is {_MOST_STOPS}; leave some out"
            raise InvalidParameter(message, "stop")
        if (longest := max(map(len, self.stop), default=0)) > _MOST_STOP_CHARACTERS:
            message = f"a stop string has {longest} characters; the limit is {_MOST_STOP_CHARACTERS}; shorten it"
            raise InvalidParameter(message, "stop")
        if "" in self.stop:
            message = f"stop has an empty string at index {self.stop.index('')}; leave it out"
            raise InvalidParameter(message, "stop")


def _check_number(name: str, value: float | None, bounds: _Bounds) -> None:
    """Raise InvalidParameter unless the value is absent or a number within the bounds."""
    if value is not None and not bounds.least <= value <= bounds.most:
        raise InvalidParameter(f"{name} is {value!r}; expected {bounds.expected}", name)


def _check_ids(name: str, ids: Iterable[int], vocabulary: int) -> None:
    """Raise InvalidParameter for the first id that is no token of the vocabulary."""
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InvalidParameter(
                f"{name} holds the token id {token}; the model's ids are 0 to {vocabulary - 1}; use ids of its"
                " own tokenizer",
                name,
            )

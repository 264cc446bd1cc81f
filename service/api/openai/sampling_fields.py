"""The fields with which a request for text says how its tokens are chosen, as in OpenAI's API and in vLLM's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt, StrictStr

from rootstock.service.api.composed_fields import ComposedFields
from rootstock.service.api.openai.structure import ResponseFormat, StructuredOutputs, structure_of
from rootstock.service.api.predict import Body
from rootstock.service.engine.core.errors import EngineError, InvalidParameter
from rootstock.service.engine.generate.constraint.grammar import Grammar
from rootstock.service.engine.generate.sampling_options import SamplingOptions

Number = Annotated[float, Field(strict=True)]


class StreamOptions(Body):
    """The options of a stream. With `include_usage`, a last event holds the number of tokens."""

    include_usage: bool = False


class SamplingFields(ComposedFields, Body):
    """The sampling of a request for text. The engine checks every value's range.

    `response_format` and `structured_outputs` state what the answer must be; a request has one of the two.
    `user`, `metadata` and `store` are OpenAI's and have no effect.
    """

    temperature: Number = 1.0
    top_p: Number = 1.0
    top_k: StrictInt = 0
    min_p: Number = 0.0
    repetition_penalty: Number = 1.0
    presence_penalty: Number = 0.0
    frequency_penalty: Number = 0.0
    seed: StrictInt | None = None
    logit_bias: dict[str, Number] | None = None
    max_tokens: StrictInt | None = None
    min_tokens: StrictInt = 0
    stop: StrictStr | list[StrictStr] | None = None
    stop_token_ids: list[StrictInt] | None = None
    ignore_eos: StrictBool = False
    n: StrictInt = 1
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    def sampling(self, logprobs: int | None, max_tokens: int | None) -> SamplingOptions:
        """Return the engine's options. Raise InvalidParameter for a key of `logit_bias` that is no token id."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed,
            logit_bias=_biases(self.logit_bias or {}),
            logprobs=logprobs,
            max_tokens=max_tokens,
            min_tokens=self.min_tokens,
            stop=tuple(stop),
            stop_ids=frozenset(self.stop_token_ids or ()),
            ignore_eos=self.ignore_eos,
        )

    def structure(self) -> Grammar | None:
        """Return the grammar of the answer's text, if the request states one. Raise InvalidParameter for two."""
        return structure_of(self.response_format, self.structured_outputs)

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


@contextmanager
def spelled(**names: str) -> Iterator[None]:
    """Spell the fields in an engine's error as the route's body does, such as `stop_ids="stop_token_ids"`."""
    try:
        yield
    except EngineError as error:
        if error.param in names:
            own, error.param = error.param, names[error.param]
            error.args = (str(error.args[0]).replace(own, error.param, 1),)
        raise


def _biases(given: dict[str, float]) -> dict[int, float]:
    for key in given:
        if not (key.isascii() and key.isdecimal() and len(key) < 12):
            raise InvalidParameter(
                f"logit_bias has the key {key[:64]!r}; a key is the id of a token, such as '42'", "logit_bias"
            )
    return {int(key): bias for key, bias in given.items()}

"""Generated text in the form of Hugging Face's inference API and of Text Generation Inference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import to_json

from rootstock.service.api.openai.answers import collect
from rootstock.service.api.openai.event_stream import EventStream
from rootstock.service.api.openai.sampling_fields import Number, spelled
from rootstock.service.api.options import Urgency, options_of, sticky_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.stream import AnswerTokens, TextStream
from rootstock.service.engine.generate.token_sampler import FinishReason, TokenChoice

# A client may take this much longer to read a stream than its answer may take.
_SLACK_S = 30.0
# The number of tokens of an answer if the request sets none, as in Text Generation Inference.
_TOKENS = 100


class HubSampling(Strict):
    """The parameters of generated text. Without `do_sample`, temperature, top_k or top_p, it is greedy.

    With `details`, the answer holds its tokens. The fields below it take only the values that switch them off,
    which some clients send.
    """

    max_new_tokens: StrictInt | None = None
    do_sample: StrictBool | None = None
    temperature: Number | None = None
    top_k: StrictInt | None = None
    top_p: Number | None = None
    repetition_penalty: Number | None = None
    frequency_penalty: Number | None = None
    seed: StrictInt | None = None
    stop: list[StrictStr] | None = None
    return_full_text: StrictBool | None = None
    details: StrictBool | None = None
    decoder_input_details: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1, strict=True)] | None = None
    watermark: Literal[False] | None = None
    typical_p: None = None
    truncate: None = None
    top_n_tokens: None = None
    grammar: None = None

    def sampling(self, logprobs: bool) -> SamplingOptions:
        """Return the engine's options."""
        samples = self.do_sample or not (self.temperature is self.top_k is self.top_p is None)
        fields = ("top_k", "top_p", "repetition_penalty", "frequency_penalty", "seed")
        return SamplingOptions(
            temperature=(1.0 if self.temperature is None else self.temperature) if samples else 0.0,
            max_tokens=_TOKENS if self.max_new_tokens is None else self.max_new_tokens,
            stop=tuple(self.stop or ()),
            logprobs=0 if logprobs else None,
            **{name: value for name in fields if (value := getattr(self, name)) is not None},
        )


class RewriteParameters(Strict):
    """The parameters of a summary or a translation. Texts are neither truncated nor cleaned up.

    A model has one pair of languages, which its adapter or its checkpoint chooses.
    """

    generate_parameters: HubSampling = HubSampling()
    clean_up_tokenization_spaces: Literal[False] | None = None
    truncation: Literal["do_not_truncate"] | None = None


class HubForm(NamedTuple):
    """The names that a task has for the parameters of generation and for the text of an answer."""

    sampling: str = "parameters"
    text: str = "generated_text"


_REWRITTEN = "parameters.generate_parameters"
# The tasks of an encoder–decoder model besides its own one, whose answers differ in the name of the text alone.
REWRITES = {
    "summarization": HubForm(_REWRITTEN, "summary_text"),
    "translation": HubForm(_REWRITTEN, "translation_text"),
}


class HubToken(BaseModel):
    """A token of an answer with its log-probability; `special` is true for one that ends a text.

    `text` is the part of the answer that the token completes.
    """

    id: int
    text: str
    logprob: float
    special: bool


class HubDetails(BaseModel):
    """The end of an answer and its tokens; the events of a stream hold the tokens themselves."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    input_length: int
    seed: int | None
    prefill: list[HubToken] = []
    tokens: list[HubToken] = []


class HubEvent(BaseModel):
    """A token of a stream. The last one also holds the whole text and the details."""

    index: int
    token: HubToken
    generated_text: str | None
    details: HubDetails | None


class HubStream(EventStream):
    """A stream of tokens. Text Generation Inference marks no end, and its client reads no mark."""

    end = ""


async def generate_text(
    name: str,
    task: str,
    prompt: str,
    parameters: Mapping[str, Any],
    streams: bool,
    urgency: Urgency,
    request: Request,
    within: float | None,
) -> Response:
    """Continue or rewrite a text with a model that generates, as one answer or as a stream of events."""
    engine, target = server_of(request).foundations.generator(name, sticky_of(request))
    form = REWRITES.get(task, HubForm())
    given = _sampling(task, parameters)
    with _spelled(form):
        options = options_of(urgency, request, within, engine.limits.timeout_s)
    start = prompt if given.return_full_text else ""
    async with AsyncExitStack() as held:
        sampling = given.sampling(bool(streams or given.details))
        call = held.enter_async_context(engine.generate(name, prompt, sampling, 1, options, target))
        with _spelled(form):
            stream = await while_connected(request, call)
        if streams:
            events = _events(stream, given, start)
            return HubStream(events, held.pop_all(), request.url.path, engine.limits.timeout_s + _SLACK_S)
        (answer,) = await while_connected(request, collect(stream, 1))
    text: dict[str, Any] = {form.text: start + answer.text}
    if given.details:
        details = _details(stream, given, answer.choices[-1], answer.finish)
        details.tokens = [
            _token(stream.tokens, choice, stream.tokens.text_of(choice.token)) for choice in answer.choices
        ]
        text["details"] = details.model_dump()
    return Response(to_json([text]), media_type="application/json")


def _sampling(task: str, parameters: Mapping[str, Any]) -> HubSampling:
    """Return the parameters of generation. Raise RequestValidationError with places in the body."""
    try:
        if task in REWRITES:
            return RewriteParameters.model_validate(parameters).generate_parameters
        return HubSampling.model_validate(parameters)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", "parameters", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults) from None


def _spelled(form: HubForm) -> Any:
    """Spell the engine's options in an error as this route does."""
    same = ("temperature", "top_k", "top_p", "repetition_penalty", "frequency_penalty", "seed", "stop")
    names = {name: f"{form.sampling}.{name}" for name in same}
    return spelled(**names, max_tokens=f"{form.sampling}.max_new_tokens", prompt="inputs")


async def _events(stream: TextStream, given: HubSampling, start: str) -> AsyncIterator[BaseModel]:
    text, index = start, 0
    async for piece in stream:
        index += 1
        text += piece.text
        yield HubEvent(
            index=index,
            token=_token(stream.tokens, piece.choice, piece.text),
            generated_text=None if piece.finish is None else text,
            details=None if piece.finish is None else _details(stream, given, piece.choice, piece.finish),
        )


def _details(stream: TextStream, given: HubSampling, last: TokenChoice, finish: FinishReason) -> HubDetails:
    stopped: Literal["stop_sequence", "eos_token"] = (
        "eos_token" if stream.tokens.ends(last.token) else "stop_sequence"
    )
    return HubDetails(
        finish_reason="length" if finish == "length" else stopped,
        generated_tokens=stream.completion_tokens,
        input_length=stream.prompt_tokens,
        seed=given.seed,
    )


def _token(known: AnswerTokens, choice: TokenChoice, text: str) -> HubToken:
    return HubToken(id=choice.token, text=text, logprob=choice.logprob or 0.0, special=known.ends(choice.token))

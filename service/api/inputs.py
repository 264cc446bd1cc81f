"""The forms of an input in JSON, which most routes share, and the reading of the engine's inputs from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Request
from pydantic import Discriminator, StrictStr, Tag

from rootstock.adapters.media import MediaFile
from rootstock.service.api.media.media_files import MediaFiles
from rootstock.service.api.media.media_input import AudioInput, ImageInput
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.encode.modalities.text_input import Input as TextInput
from rootstock.service.engine.encode.modalities.text_input import Question

Input = TextInput | MediaFile


class TextPair(Strict):
    """A text, or a pair of texts that one prediction is about."""

    text: StrictStr
    text_pair: StrictStr | None = None


class QuestionContext(Strict):
    """A question, and the text to find its answer in."""

    question: StrictStr
    context: StrictStr


def form_of(value: Any) -> str:
    """Return the tag of the form that an input seems to have, so that an error names that form."""
    keys = set(value) if isinstance(value, dict) else set()
    if keys & {"question", "context"}:
        return "a question"
    if keys & {"text", "text_pair"}:
        return "a pair"
    if "image" in keys:
        return "an image"
    return "an audio" if "audio" in keys else "a text"


InputForm = Annotated[
    Annotated[StrictStr, Tag("a text")]
    | Annotated[TextPair, Tag("a pair")]
    | Annotated[QuestionContext, Tag("a question")]
    | Annotated[ImageInput, Tag("an image")]
    | Annotated[AudioInput, Tag("an audio")],
    Discriminator(form_of),
]
GivenInput = str | TextPair | QuestionContext | ImageInput | AudioInput


async def read_inputs(request: Request, given: Sequence[GivenInput]) -> list[Input]:
    """Return the engine's inputs.

    Raise InvalidInput for an image or a recording whose bytes cannot be had, TooLarge for too many bytes.
    """
    files: MediaFiles | None = None
    inputs: list[Input] = []
    for i, value in enumerate(given):
        if isinstance(value, ImageInput | AudioInput):
            files = files or media_files(request)
            inputs.append(await files.read(value, f"inputs[{i}]"))
        else:
            inputs.append(_text_of(value))
    return inputs


def media_files(request: Request) -> MediaFiles:
    """Return a reader of this request's files."""
    server = server_of(request)
    return MediaFiles(server.remote_files, server.max_body_bytes)


def _text_of(value: str | TextPair | QuestionContext) -> TextInput:
    if isinstance(value, str):
        return value
    if isinstance(value, TextPair):
        return value.text if value.text_pair is None else (value.text, value.text_pair)
    return Question(value.question, value.context)

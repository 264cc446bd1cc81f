"""The items of an embedding's input: those of Jina, and Infinity's strings with a modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import Discriminator, Field, StrictStr, Tag

from rootstock.service.api.inputs import Input, read_inputs
from rootstock.service.api.media.media_input import AudioInput, ImageInput
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidInput

ItemModality = Literal["text", "image", "audio"]


class TextItem(Strict):
    """A text to embed."""

    text: StrictStr


def _item_form(value: Any) -> str:
    keys = set(value) if isinstance(value, dict) else set()
    if "image" in keys:
        return "an image"
    return "an audio" if "audio" in keys else "a text item"


EmbeddedItem = Annotated[
    Annotated[TextItem, Tag("a text item")]
    | Annotated[ImageInput, Tag("an image")]
    | Annotated[AudioInput, Tag("an audio")],
    Discriminator(_item_form),
]
Items = Annotated[list[EmbeddedItem], Field(min_length=1, fail_fast=True)]


async def read_items(request: Request, items: Sequence[TextItem | ImageInput | AudioInput]) -> list[Input]:
    """Return the engine's inputs of items. Raise InvalidInput or TooLarge as `read_inputs` does."""
    return await read_inputs(request, [one.text if isinstance(one, TextItem) else one for one in items])


def items_of(strings: Sequence[Any], modality: ItemModality) -> list[ImageInput | AudioInput]:
    """Return strings as images or recordings. Raise InvalidInput for token ids."""
    if not all(isinstance(text, str) for text in strings):
        raise InvalidInput(
            f"with modality {modality}, input is a string or a list of strings; send data URLs", "input"
        )
    if modality == "image":
        return [ImageInput(image=text) for text in strings]
    return [AudioInput(audio=text) for text in strings]

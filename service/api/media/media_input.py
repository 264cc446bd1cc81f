"""The forms of an image and of a recording in JSON."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, StrictStr, Tag
from pydantic import Strict as StrictType
from pydantic.json_schema import SkipJsonSchema

from rootstock.adapters.media import MediaModality
from rootstock.service.api.strict import Strict


class Base64File(Strict):
    """A file as base64: that of RFC 4648 section 4, padded, without line breaks."""

    b64: StrictStr


def _source_form(value: Any) -> str:
    """Return the tag of the form that a source seems to have, so that an error names that form."""
    if isinstance(value, dict):
        return "base64 in an object"
    return "bytes of a body" if isinstance(value, bytes) else "a URL or base64"


# Bytes never come from JSON. They are a part of a form, or a whole body.
MediaSource = Annotated[
    Annotated[StrictStr, Tag("a URL or base64")]
    | Annotated[Base64File, Tag("base64 in an object")]
    | Annotated[SkipJsonSchema[Annotated[bytes, StrictType()]], Tag("bytes of a body")],
    Discriminator(_source_form),
]


class ImageInput(Strict):
    """An image: `{b64}`, base64 or a data URL; an address needs ROOTSTOCK_MEDIA_HOSTS."""

    image: MediaSource = Field(examples=["data:image/png;base64,iVBORw0KGgo="])

    @property
    def source(self) -> str | Base64File | bytes:
        return self.image

    @property
    def modality(self) -> MediaModality:
        return "image"


class AudioInput(Strict):
    """A recording: `{b64}`, base64 or a data URL; an address needs ROOTSTOCK_MEDIA_HOSTS."""

    audio: MediaSource = Field(examples=["data:audio/wav;base64,UklGRg=="])

    @property
    def source(self) -> str | Base64File | bytes:
        return self.audio

    @property
    def modality(self) -> MediaModality:
        return "audio"


MediaInput = ImageInput | AudioInput

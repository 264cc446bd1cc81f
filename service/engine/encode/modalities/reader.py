"""Define what turns the inputs of one modality into samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.tasks import Modality
from rootstock.service.engine.core.errors import InvalidInput
from rootstock.service.engine.encode.sample import Sample, SampleArrays

_TAKEN = {"text": "a text", "image": "an image", "audio": "a recording"}


class UnservedPreprocessing(ValueError):
    """A foundation's way to prepare its inputs, whose numbers the server would not reproduce."""


class Reader(Protocol):
    """The preparation of a foundation's inputs: a tokenizer, or a decoder of files. Thread-safe."""

    modality: Modality

    def check(self, inputs: Sequence[Any]) -> None:
        """Raise InvalidInput for an input of another modality, and TooLarge for one beyond a limit.

        The check is cheap. The event loop calls it before it admits a request.
        """

    def tokens(self, inputs: Sequence[Any]) -> int:
        """Estimate the cost of a call's inputs in tokens, without reading them."""

    def checked(self, check: Callable[[], None]) -> Self:
        """Return a copy that calls `check` before long work. An error that `check` raises ends the work."""

    def collate(self, samples: Sequence[Any]) -> SampleArrays:
        """Stack distinct samples to the inputs of the trunk."""


class MediaReader(Reader, Protocol):
    """A reader of files: images or recordings."""

    def read(self, value: Any) -> Sample:
        """Return the sample of a file. Raise InvalidInput if it cannot be decoded, TooLarge beyond a limit."""


def modality_of(value: Any) -> Modality:
    """Return the modality of an input."""
    if isinstance(value, ImageFile):
        return "image"
    return "audio" if isinstance(value, AudioFile) else "text"


def other_modality(takes: Modality, value: Any, where: str) -> InvalidInput:
    """Return the error for an input of another modality than the one that a foundation takes."""
    given = _TAKEN[modality_of(value)]
    return InvalidInput(f"{where} is {given}, and the model takes {_TAKEN[takes]} (modality {takes})", where)

"""Define the inputs that are texts, and limit their size before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rootstock.service.engine.core.errors import TooLarge
from rootstock.service.engine.encode.modalities.reader import other_modality

# The most characters of one input, both texts together. The tokenizer reads them without a pause, in a fifth of a
# second.
MAX_CHARACTERS = 2**18


class Question(NamedTuple):
    """A question and the text that holds its answer."""

    question: str
    context: str


# A text, a pair of texts, or a question with its context, which the trunk takes as a pair.
Input = str | tuple[str, str]


def characters(value: Input) -> int:
    """Return how many characters an input holds, both texts together."""
    return len(value) if isinstance(value, str) else len(value[0]) + len(value[1])


def check_characters(inputs: Sequence[Input]) -> None:
    """Raise TooLarge for an input of too many characters."""
    for i, value in enumerate(inputs):
        if (size := characters(value)) > MAX_CHARACTERS:
            raise TooLarge(
                f"an input has {size} characters and the limit is {MAX_CHARACTERS}; shorten it", f"inputs[{i}]"
            )


def check_texts(inputs: Sequence[Any]) -> None:
    """Raise InvalidInput for an input that is no text, and TooLarge for one of too many characters."""
    for i, value in enumerate(inputs):
        if not isinstance(value, str | tuple):
            raise other_modality("text", value, f"inputs[{i}]")
    check_characters(inputs)

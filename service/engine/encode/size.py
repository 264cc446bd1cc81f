"""Limit the size of a call before any work: what it reads, the parameters and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from rootstock.service.engine.core.errors import TooLarge

# The most characters that one call reads. Each input counts once for each of its models and rows.
MAX_CALL_CHARACTERS = 2**23
# The most characters of all texts in `parameters`, keys included, and the most values.
MAX_PARAMETER_CHARACTERS = 2**16
MAX_PARAMETER_VALUES = 2**12
# The most bytes of a call's answer as JSON, by a rough estimate: 32 MiB.
MAX_ANSWER_BYTES = 2**25
# The most numbers in a call's raw outputs: 128 MiB.
MAX_NUMBERS = 2**25


def check_total(size: int) -> None:
    """Raise TooLarge for a call that reads too many characters."""
    if size > MAX_CALL_CHARACTERS:
        raise TooLarge(
            f"the request reads {size} characters, each input once for each of its models and labels, and the "
            f"limit is {MAX_CALL_CHARACTERS}; send fewer or shorter inputs",
            "inputs",
        )


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise TooLarge for parameters of too many values, or of too much text."""
    values = length = 0
    for name, parameter in parameters.items():
        waiting: list[Any] = [name, parameter]
        values += 2
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                length += len(value)
            elif isinstance(value, list | dict):
                values += len(value)
                # If there are too many values, count them without reading them.
                if values <= MAX_PARAMETER_VALUES:
                    waiting += value if isinstance(value, list) else chain(value, value.values())
            _refuse_parameter(name, length, MAX_PARAMETER_CHARACTERS, "characters")
            _refuse_parameter(name, values, MAX_PARAMETER_VALUES, "values")


def _refuse_parameter(name: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise TooLarge(
            f"parameters has at least {size} {unit} and the limit is {most}; shorten {name[:64]!r}",
            f"parameters.{name[:64]}",
        )


def check_answer(size: int) -> None:
    """Raise TooLarge for an answer of too many bytes."""
    if size > MAX_ANSWER_BYTES:
        raise TooLarge(
            f"the answer would take about {size / 2**20:.0f} MiB and the limit is "
            f"{MAX_ANSWER_BYTES // 2**20} MiB; send fewer inputs, or lower parameters.top_k",
            "inputs",
        )

"""Define a task on texts, whose inputs a tokenizer reads and may truncate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.modalities.text_input import Input, characters
from rootstock.service.engine.encode.tasks.task import Task
from rootstock.service.engine.encode.tasks.truncation import (
    TRUNCATION,
    check_truncation,
    preprocessing_for,
    truncates,
)


class TextTask(Task[Tokenizer]):
    """A task on texts. Beside the parameters in `own_parameters` it has those of truncation."""

    takes: tuple[type, ...] = (str,)
    own_parameters: frozenset[str] = frozenset()

    def __init_subclass__(cls) -> None:
        cls.parameters = cls.own_parameters.union(TRUNCATION)

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for a name or a value that the task does not take."""
        super().check(parameters)
        check_truncation(parameters)

    def read(
        self, value: Input, preprocessing: Preprocessing, parameters: Mapping[str, Any], reader: Tokenizer
    ) -> TextSample:
        """Return the tokens of a text or a pair. Raise TooLong if they are too many and may not be truncated."""
        if type(value) is tuple and not value[1] and not self.keeps_empty_pair:
            value = value[0]
        preprocessing = preprocessing_for(preprocessing, parameters)
        return reader.encode(value, preprocessing, truncates(parameters))

    def effort(self, value: Input, parameters: Mapping[str, Any]) -> int:
        """Return the number of characters that one row of an input reads, or a few more."""
        return characters(value)

"""Define a task: it checks a call, turns inputs into rows, and turns raw head outputs into predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Adapter, Array, Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge
from rootstock.service.engine.encode.modalities.text_input import Question
from rootstock.service.engine.encode.sample import Sample

# The bytes of a label with its score as JSON, by a rough estimate.
ANSWER_ITEM_BYTES = 64
_FORMS = {
    str: "a string",
    tuple: "a pair",
    Question: "a question with its context",
    ImageFile: "an image",
    AudioFile: "a recording",
}
# The part that turns a task's inputs into samples: a tokenizer, or a reader of files.
ReaderT = TypeVar("ReaderT")


class Task(ABC, Generic[ReaderT]):
    """One Hugging Face pipeline tag, with the predictions that transformers' pipeline gives for it.

    `takes` lists the accepted forms of input. `parameters` names the parameters that it takes.
    `keeps_empty_pair` tells whether an empty second text still makes a pair, with separators.
    """

    name: str
    takes: tuple[type, ...]
    parameters: frozenset[str] = frozenset()
    # transformers' tokenizers drop an empty second text from a single pair, but keep it in a batch of pairs.
    keeps_empty_pair = False

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for a name or a value that the task does not take."""
        for name in parameters:
            if name not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise InvalidParameter(
                    f"{self.name} has no parameter {name!r}; it has: {known}", f"parameters.{name}"
                )

    def check_input(self, value: Any, where: str) -> None:
        """Raise InvalidInput for an input that the task does not take."""
        if type(value) not in self.takes:
            forms = " or ".join(_FORMS[form] for form in self.takes)
            raise InvalidInput(f"{self.name} takes {forms}; {where} is {_FORMS[type(value)]}", where)

    def check_adapter(self, adapter: Adapter, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for parameters that the task takes and this adapter does not."""

    @abstractmethod
    def read(
        self, value: Any, preprocessing: Preprocessing, parameters: Mapping[str, Any], reader: ReaderT
    ) -> Sample:
        """Return an input as one row, as a golden set counts it."""

    def encode(
        self,
        value: Any,
        preprocessing: Preprocessing,
        parameters: Mapping[str, Any],
        reader: ReaderT,
        most: int,
    ) -> Sequence[Sample] | Iterator[Sample]:
        """Return one input's rows: by default a list of one row.

        Raise TooLarge for more than `most` rows. An iterator yields as many rows as `readings` returns.
        """
        return [self.read(value, preprocessing, parameters, reader)]

    def readings(self, parameters: Mapping[str, Any]) -> int:
        """Return how many rows each input becomes because of the parameters. Each row reads the input again."""
        return 1

    @abstractmethod
    def effort(self, value: Any, parameters: Mapping[str, Any]) -> int:
        """Return the effort to read one row of an input, in characters of text."""

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate the bytes that a row of `tokens` tokens takes in the answer.

        For 0 tokens, give a lower bound.
        """
        return ANSWER_ITEM_BYTES

    def numbers(self, adapter: Adapter, tokens: int) -> int:
        """Return how many numbers the head gives for a row of `tokens` tokens, as far as labels decide it."""
        return len(adapter.labels)

    @abstractmethod
    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[Any],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        reader: ReaderT,
    ) -> Any:
        """Return one input's prediction, ready for JSON, from the raw outputs of its rows."""


def check_call(task: Task[Any], inputs: Sequence[Any], parameters: Mapping[str, Any]) -> None:
    """Raise InvalidParameter or InvalidInput unless the task takes these parameters and inputs."""
    task.check(parameters)
    for i, value in enumerate(inputs):
        task.check_input(value, f"inputs[{i}]")


def check_bool(parameters: Mapping[str, Any], name: str) -> None:
    """Raise InvalidParameter unless the parameter is absent, true or false."""
    if not isinstance(parameters.get(name, False), bool):
        raise InvalidParameter(f"{name} is {parameters[name]!r}; expected true or false", f"parameters.{name}")


def check_count(parameters: Mapping[str, Any], name: str, least: int = 1) -> None:
    """Raise InvalidParameter unless the parameter is absent, null or a whole number of at least `least`."""
    value = parameters.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise InvalidParameter(
            f"{name} is {value!r}; expected null or a whole number of at least {least}", f"parameters.{name}"
        )


def check_one_of(parameters: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    """Raise InvalidParameter unless the parameter is absent, null or one of `allowed`."""
    if parameters.get(name) is not None and parameters[name] not in allowed:
        raise InvalidParameter(
            f"{name} is {parameters[name]!r}; expected one of: {', '.join(allowed)}", f"parameters.{name}"
        )


def check_rows(rows: int, most: int, unit: str) -> None:
    """Raise TooLarge for an input that becomes more rows than its request has left."""
    if rows > most:
        message = f"an input becomes {rows} rows, {unit}; the request has {most} left; split the request"
        raise TooLarge(message, "inputs")

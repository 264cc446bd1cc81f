"""The tensors of the Open Inference Protocol v2: texts come in as BYTES, and predictions go out by task.

It has Triton's binary extension: tensors may follow the JSON of a body as bytes, one after the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, StrictBool, StrictStr

from rootstock.service.api.compat.served_model import ServedModel
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.modalities.text import Input, Question

_LENGTH_BYTES = 4
_PAIRED = ("text-classification", "text-ranking")


class InputParameters(Strict):
    """The parameters of an input: the size of its data among the bytes behind the JSON, if they are there."""

    binary_data_size: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = None


class InputTensor(Strict):
    """A tensor of texts: `data` holds them, in any nesting, unless they follow the JSON as bytes."""

    name: StrictStr
    datatype: StrictStr
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]], Field(min_length=1, max_length=8)]
    data: list[Any] | None = None
    parameters: InputParameters = InputParameters()


class OutputParameters(Strict):
    """The parameters of a requested output: whether it follows the JSON as bytes."""

    binary_data: StrictBool | None = None


class RequestedOutput(Strict):
    """An output that the answer is to hold."""

    name: StrictStr
    parameters: OutputParameters = OutputParameters()


class TensorForm(NamedTuple):
    """A tensor's name, datatype and shape; -1 is a size that depends on the request."""

    name: str
    datatype: str
    shape: list[int]


class Output(NamedTuple):
    """An output tensor: an fp32 array, or an array of strings."""

    name: str
    values: np.ndarray

    @property
    def datatype(self) -> str:
        return "FP32" if self.values.dtype == np.float32 else "BYTES"

    def data(self) -> list[Any]:
        """Return the elements as JSON, in row-major order."""
        elements: list[Any] = self.values.ravel().tolist()
        return elements

    def raw(self) -> bytes:
        """Return the elements as little-endian bytes; each string has its length before it."""
        if self.datatype == "FP32":
            return self.values.astype("<f4").tobytes()
        encoded = [text.encode() for text in self.values.ravel().tolist()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in encoded)


def input_names(task: str) -> list[str]:
    """Return the names of the inputs that a task needs."""
    if task == "question-answering":
        return ["question", "context"]
    return ["text", "text_pair"] if task == "text-ranking" else ["text"]


def output_forms(model: ServedModel) -> list[TensorForm]:
    """Return the outputs of a model, in their order."""
    if model.task == "text-classification":
        count = len(model.labels)
        return [
            TensorForm("label", "BYTES", [-1]),
            TensorForm("score", "FP32", [-1]),
            TensorForm("labels", "BYTES", [count]),
            TensorForm("scores", "FP32", [-1, count]),
        ]
    if model.task == "text-ranking":
        return [TensorForm("score", "FP32", [-1])]
    if model.task == "feature-extraction":
        return [TensorForm("embeddings", "FP32", [-1, -1])]
    return [TensorForm("predictions", "BYTES", [-1])]


def inputs_of(tensors: Sequence[InputTensor], binary: bytes, task: str) -> list[Input]:
    """Return the inputs in a request's tensors. Raise InvalidInput for tensors that the task does not take.

    The name of a single tensor of texts does not count.
    """
    texts = _texts_by_name(tensors, binary)
    names = input_names(task)
    if len(texts) == 1 and len(names) == 1:
        return list(next(iter(texts.values())))
    known = ["text", "text_pair"] if task in _PAIRED else names
    if not set(names) <= set(texts) <= set(known):
        raise InvalidInput(
            f"the inputs are {', '.join(map(repr, texts))[:200]}; {task} takes {' and '.join(known)}; use these "
            "names",
            "inputs",
        )
    columns = [texts[name] for name in known if name in texts]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{name} has {len(texts[name])}" for name in known)
        raise InvalidInput(f"the inputs have different numbers of texts: {counts}; send equally many", "inputs")
    rows = zip(*columns, strict=True)
    return [Question(*row) for row in rows] if task == "question-answering" else [(a, b) for a, b in rows]


def outputs_of(model: ServedModel, predictions: Sequence[Any]) -> list[Output]:
    """Return the outputs of `output_forms`; for text-classification, predictions must list every label."""
    if model.task == "text-classification":
        scored = [{one["label"]: one["score"] for one in prediction} for prediction in predictions]
        return [
            Output("label", _strings([prediction[0]["label"] for prediction in predictions])),
            Output("score", _numbers([prediction[0]["score"] for prediction in predictions])),
            Output("labels", _strings(model.labels)),
            Output("scores", _numbers([[scores[label] for label in model.labels] for scores in scored])),
        ]
    if model.task == "text-ranking":
        return [Output("score", _numbers([prediction["score"] for prediction in predictions]))]
    if model.task == "feature-extraction":
        return [Output("embeddings", _numbers(predictions))]
    return [Output("predictions", _strings([json.dumps(one, ensure_ascii=False) for one in predictions]))]


def chosen_outputs(outputs: Sequence[Output], requested: Sequence[RequestedOutput] | None) -> list[Output]:
    """Return the outputs that a request asks for, all by default. Raise InvalidParameter for an unknown one."""
    if not requested:
        return list(outputs)
    by_name = {output.name: output for output in outputs}
    for one in requested:
        if one.name not in by_name:
            raise InvalidParameter(
                f"there is no output {one.name[:64]!r}; this model has {', '.join(by_name)}", "outputs"
            )
    return [by_name[one.name] for one in requested]


def _texts_by_name(tensors: Sequence[InputTensor], binary: bytes) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    place = 0
    for tensor in tensors:
        name = tensor.name[:64]
        if tensor.datatype != "BYTES":
            raise InvalidInput(
                f"the input {name!r} has the datatype {tensor.datatype[:64]}; this server takes texts, as BYTES",
                "inputs",
            )
        if tensor.name in texts:
            raise InvalidInput(f"two inputs are called {name!r}; send each once", "inputs")
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise InvalidInput(
                f"the input {name!r} needs its texts once: as data, or as bytes behind the JSON with "
                "binary_data_size",
                "inputs",
            )
        elements = _flat(tensor.data or []) if size is None else _from_bytes(binary[place : place + size], size)
        place += size or 0
        texts[tensor.name] = _checked(name, list(elements), tensor.shape)
    if place != len(binary):
        raise InvalidInput(
            f"{len(binary)} bytes follow the JSON and the inputs declare {place} in all; declare each tensor's "
            "binary_data_size",
            "inputs",
        )
    return texts


def _flat(data: Sequence[Any]) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _from_bytes(data: bytes, size: int) -> Iterator[str]:
    """Yield the strings of a tensor, each with its length before it. Raise InvalidInput if one is cut off."""
    place = 0
    while place < size:
        length = int.from_bytes(data[place : place + _LENGTH_BYTES], "little")
        place += _LENGTH_BYTES
        text = data[place : place + length]
        place += length
        if place > size or len(data) < size:
            raise InvalidInput(
                "the bytes of a tensor end inside a text; send each text with its length in 4 bytes before "
                "it, and the sum as binary_data_size",
                "inputs",
            )
        try:
            yield text.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"a text is not UTF-8 ({error}); send UTF-8", "inputs") from None


def _checked(name: str, elements: list[Any], shape: list[int]) -> list[str]:
    if any(not isinstance(element, str) for element in elements):
        raise InvalidInput(f"the input {name!r} holds something other than texts; send strings", "inputs")
    if math.prod(shape) != len(elements) or math.prod(shape[1:]) != 1:
        raise InvalidInput(
            f"the input {name!r} has {len(elements)} texts and the shape {shape}; send the shape "
            f"[{len(elements)}] or [{len(elements)}, 1]",
            "inputs",
        )
    return elements


def _strings(values: Sequence[str]) -> np.ndarray:
    return np.array(list(values), dtype=object)


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)

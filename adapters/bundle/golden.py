"""Reads and writes `golden.json`: inputs, and the raw head outputs of the trainer's reloaded adapter for them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.media import MEDIA_FILES, MediaFile, MediaModality
from rootstock.adapters.spec import Array, Rejected
from rootstock.adapters.strict_json.canonical import canonical
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.tasks import Modality

# A text, a pair of texts, or a file.
GoldenInput = str | tuple[str, str] | MediaFile

MAX_INPUTS = 16
# The limit of one input, both texts together. It is below a server's limit for a request.
MAX_CHARACTERS = 2**17
# The limit of one image or recording: 30 s of speech at 16 kHz in 16 bits take 938 KiB.
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Golden:
    """A golden set: inputs of one modality, and the raw head output for each.

    An output has shape (labels,) or (dimensions,). For token classification it has shape (tokens, labels),
    special tokens included.
    """

    inputs: tuple[GoldenInput, ...]
    outputs: tuple[Array, ...]

    @property
    def texts(self) -> tuple[str | tuple[str, str], ...]:
        """Return the inputs of a task for text."""
        return tuple(value for value in self.inputs if isinstance(value, str | tuple))

    def to_bytes(self) -> bytes:
        """Return the bytes of `golden.json`. Its outputs are fp32 values, which read back unchanged."""
        inputs = [_input_json(value) for value in self.inputs]
        return canonical({"inputs": inputs, "outputs": [o.astype(float).tolist() for o in self.outputs]})


def read_golden(data: bytes, modality: Modality) -> Golden:
    """Return the golden set in the bytes of a `golden.json` of a task of this modality.

    Raise Rejected (check "schema") that names the fault.
    """
    value = read_json(data, "golden.json")
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if set(value) != {"inputs", "outputs"} or not isinstance(inputs, list) or not isinstance(outputs, list):
        raise Rejected(
            "schema", "golden.json", f"has the keys {sorted(value)}; expected lists inputs and outputs"
        )
    if not 1 <= len(inputs) <= MAX_INPUTS or len(inputs) != len(outputs):
        raise Rejected(
            "schema",
            "golden.json",
            f"{len(inputs)} inputs and {len(outputs)} outputs; expected the same number of both, from 1 to "
            f"{MAX_INPUTS}",
        )
    return Golden(
        tuple(_input(v, f"golden.json: inputs[{i}]", modality) for i, v in enumerate(inputs)),
        tuple(_output(v, i) for i, v in enumerate(outputs)),
    )


def _input(value: Any, where: str, modality: Modality) -> GoldenInput:
    return _text(value, where) if modality == "text" else _file(value, where, modality)


def _input_json(value: GoldenInput) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return {"text": value[0], "text_pair": value[1]}
    kind = next(modality for modality, file in MEDIA_FILES.items() if isinstance(value, file))
    return {kind: {"b64": base64.b64encode(value.data).decode("ascii")}}


def _text(value: Any, where: str) -> str | tuple[str, str]:
    texts = [value]
    if isinstance(value, dict) and set(value) == {"text", "text_pair"}:
        texts = [value["text"], value["text_pair"]]
    if not all(isinstance(text, str) for text in texts):
        raise Rejected("schema", where, "not a string or {text, text_pair}; the task takes text inputs")
    if (size := sum(map(len, texts))) > MAX_CHARACTERS:
        raise Rejected("schema", where, f"has {size} characters and the limit is {MAX_CHARACTERS}; shorten it")
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _file(value: Any, where: str, modality: MediaModality) -> MediaFile:
    inside = value.get(modality) if isinstance(value, dict) and len(value) == 1 else None
    encoded = inside.get("b64") if isinstance(inside, dict) and len(inside) == 1 else None
    if not isinstance(encoded, str):
        form = f'{{"{modality}": {{"b64": TEXT}}}}'
        raise Rejected("schema", where, f"not {form}; the task takes {modality} inputs")
    if (size := len(encoded) // 4 * 3 - encoded[-2:].count("=")) > MAX_FILE_BYTES:
        raise Rejected(
            "schema", where, f"the file has {size} bytes and the limit is {MAX_FILE_BYTES}; take a smaller one"
        )
    return MEDIA_FILES[modality](_decoded(encoded, where))


def _decoded(encoded: str, where: str) -> bytes:
    """Return the bytes of a text in base64 (RFC 4648), which must be the only text for these bytes."""
    try:
        data = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Rejected("schema", where, f"not base64 with padding: {error}") from None
    if base64.b64encode(data).decode("ascii") != encoded:
        raise Rejected("schema", where, "not base64 with padding: the text ends in bits of no byte")
    if not data:
        raise Rejected("schema", where, "the file is empty")
    return data


def _output(value: Any, i: int) -> Array:
    where = f"golden.json: outputs[{i}]"
    try:
        if not _numeric(value):
            raise TypeError
        with np.errstate(over="ignore"):
            output = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise Rejected("schema", where, "not a rectangular list of numbers") from None
    if output.ndim not in (1, 2) or output.size == 0:
        raise Rejected("schema", where, f"has shape {list(output.shape)}; expected 1 or 2 dimensions, not empty")
    if not np.isfinite(output).all():
        raise Rejected("schema", where, "has a number that fp32 cannot hold")
    return output


def _numeric(value: Any) -> bool:
    """Return whether a value holds only numbers; numpy would read "1.5", true and null as numbers too."""
    return all(map(_numeric, value)) if isinstance(value, list) else type(value) in (int, float)

"""Reads and writes `golden.json`: inputs, and the raw head outputs of the trainer's reloaded adapter for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.bundle.canonical import canonical
from rootstock.adapters.bundle.manifest import read_json
from rootstock.adapters.spec import Array, Rejected

MAX_INPUTS = 16
# The limit of one input, both texts together. It is below a server's limit for a request.
MAX_CHARACTERS = 2**17


@dataclass(frozen=True)
class Golden:
    """A golden set: inputs (each a text or a pair of texts), and the raw head output for each.

    An output has shape (labels,) or (dimensions,). For token classification it has shape (tokens, labels),
    special tokens included.
    """

    inputs: tuple[str | tuple[str, str], ...]
    outputs: tuple[Array, ...]

    def to_bytes(self) -> bytes:
        """Return the bytes of `golden.json`. Its outputs are fp32 values, which read back unchanged."""
        inputs = [i if isinstance(i, str) else {"text": i[0], "text_pair": i[1]} for i in self.inputs]
        return canonical({"inputs": inputs, "outputs": [o.astype(float).tolist() for o in self.outputs]})


def read_golden(data: bytes) -> Golden:
    """Return the golden set in the bytes of a `golden.json`.

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
        tuple(_input(v, i) for i, v in enumerate(inputs)), tuple(_output(v, i) for i, v in enumerate(outputs))
    )


def _input(value: Any, i: int) -> str | tuple[str, str]:
    texts = [value]
    if isinstance(value, dict) and set(value) == {"text", "text_pair"}:
        texts = [value["text"], value["text_pair"]]
    where = f"golden.json: inputs[{i}]"
    if not all(isinstance(text, str) for text in texts):
        raise Rejected("schema", where, "not a string or {text, text_pair}")
    if (size := sum(map(len, texts))) > MAX_CHARACTERS:
        raise Rejected("schema", where, f"has {size} characters and the limit is {MAX_CHARACTERS}; shorten it")
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


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

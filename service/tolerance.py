"""The largest allowed error of a runner's raw outputs, by its precision. All checks take it from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rootstock.adapters.bundle import Golden
from rootstock.adapters.spec import EMBEDDING, GENERATION, ZERO_SHOT_IMAGES, Array, Rejected


@dataclass(frozen=True)
class Tolerance:
    """The largest allowed error of an output with expected value x: `absolute + relative * size`.

    `size` is |x|. With a `coarse` precision it is the largest |x| of the outputs that x competes with, because
    rounding moves all of them alike. A coarse precision has a further check: the top label must stay the same,
    unless it leads by no more than the allowed error. An embedding, whose numbers are small, has a least cosine
    instead.
    """

    absolute: float
    relative: float
    coarse: bool = False

    def allowed(self, expected: Array, task: str) -> Array:
        """Return the largest allowed error of each number of an output, in the same shape."""
        size = np.abs(expected)
        if self.coarse:
            size = np.broadcast_to(size.max(axis=axis_of(task), keepdims=True), expected.shape)
        return np.asarray(self.absolute + self.relative * size, np.float32)

    def __str__(self) -> str:
        size = "largest |x|" if self.coarse else "|x|"
        return f"{self.absolute:g} + {self.relative:g}·{size}"


# int8: over 2,100 texts and the three demo adapters, the widest difference is 0.5 + 0.1 of the largest.
TOLERANCES = {
    "fp32": Tolerance(1e-4, 1e-4),
    "bf16": Tolerance(0.05, 0.05, coarse=True),
    "int8": Tolerance(0.75, 0.1, coarse=True),
    "int4": Tolerance(0.75, 0.1, coarse=True),
}
LEAST_COSINE = 0.98
# Log-probabilities of greedy tokens. They differ more than logits do.
LOGPROB_TOLERANCES = {
    "fp32": Tolerance(1e-3, 1e-3),
    "bf16": Tolerance(0.1, 0.1, coarse=True),
    "int4": Tolerance(0.5, 0.2, coarse=True),
}


def axis_of(task: str) -> int:
    """Return the axis along which the numbers of a raw output compete: that of labels, or of positions."""
    return 0 if task == "question-answering" else -1


def cosine(a: Array, b: Array) -> float:
    """Return the cosine between two vectors; 0 if one of them is zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0


def compare(output: Array, expected: Array, task: str, precision: str, where: str) -> float:
    """Return the largest difference between an output and the expected one.

    Raise Rejected with check "golden" and the number or label that is out of tolerance.
    """
    if output.shape != expected.shape:
        raise Rejected(
            "golden", where, f"the server's output has shape {output.shape}; expected {expected.shape}"
        )
    if task in GENERATION:
        return _compare_tokens(output, expected, precision, where)
    tolerance = TOLERANCES[precision]
    difference = np.abs(output - expected)
    over = difference - tolerance.allowed(expected, task)
    if (over > 0).any():
        at = np.unravel_index(int(over.argmax()), over.shape)
        place = "".join(f"[{int(k)}]" for k in at)
        raise Rejected(
            "golden",
            where + place,
            f"the server computes {float(output[at]):.6g}; expected {float(expected[at]):.6g} "
            f"(tolerance {tolerance})",
        )
    if tolerance.coarse and task in (*EMBEDDING.values(), ZERO_SHOT_IMAGES):
        if (similarity := cosine(output, expected)) < LEAST_COSINE:
            message = f"cosine {similarity:.4f} to the expected vector; at least {LEAST_COSINE} in {precision}"
            raise Rejected("golden", where, message)
    elif tolerance.coarse:
        _check_tops(output, expected, task, tolerance, where)
    return float(difference.max())


def compare_golden(outputs: Sequence[Array], golden: Golden, task: str, precision: str) -> float:
    """Return the largest difference between the outputs and those of a golden set.

    Raise Rejected as `compare` does.
    """
    worst = 0.0
    for i, (output, expected) in enumerate(zip(outputs, golden.outputs, strict=True)):
        worst = max(worst, compare(output, expected, task, precision, f"golden.json: outputs[{i}]"))
    return worst


def golden_tokens(golden: Golden, precision: str) -> list[list[int]] | None:
    """Return the tokens that a replay must force, or None in fp32, where it must generate them itself.

    Rounding may tip a near tie, and what follows another token says nothing. So a coarse precision is held to the
    log-probabilities of the expected tokens.
    """
    if not LOGPROB_TOLERANCES[precision].coarse:
        return None
    return [[int(token) for token in output[:, 0]] for output in golden.outputs]


def _compare_tokens(output: Array, expected: Array, precision: str, where: str) -> float:
    """Compare tokens, which must be the same, and their log-probabilities: (tokens, 2)."""
    other = np.flatnonzero(output[:, 0] != expected[:, 0])
    if len(other):
        at = int(other[0])
        raise Rejected(
            "golden",
            f"{where}[{at}]",
            f"the server generates token {int(output[at, 0])}; expected {int(expected[at, 0])}",
        )
    tolerance = LOGPROB_TOLERANCES[precision]
    difference = np.abs(output[:, 1] - expected[:, 1])
    over = difference - (tolerance.absolute + tolerance.relative * np.abs(expected[:, 1]))
    if len(over) and over.max() > 0:
        at = int(over.argmax())
        raise Rejected(
            "golden",
            f"{where}[{at}]",
            f"the log-probability is {float(output[at, 1]):.6g}; expected {float(expected[at, 1]):.6g} "
            f"(tolerance {tolerance})",
        )
    return float(difference.max(initial=0.0))


def _check_tops(output: Array, expected: Array, task: str, tolerance: Tolerance, where: str) -> None:
    axis = axis_of(task)
    top = np.expand_dims(output.argmax(axis), axis)
    lead = expected.max(axis, keepdims=True) - np.take_along_axis(expected, top, axis)
    most = tolerance.allowed(expected, task).max(axis, keepdims=True)
    wrong: npt.NDArray[np.intp] = np.argwhere(lead > most)
    if len(wrong):
        at = tuple(wrong[0])
        best = int(np.expand_dims(expected.argmax(axis), axis)[at])
        raise Rejected(
            "golden",
            where,
            f"the server puts {int(top[at])} first; expected {best}, which leads by {float(lead[at]):.6g} "
            f"(tolerance {tolerance})",
        )

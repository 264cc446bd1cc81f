"""Checks that two sides give the same answers. A benchmark of wrong answers is worthless."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.adapters.spec import Array

TOLERANCE = 1e-4
# A server in int8 accepts an embedding of this cosine to the expected one.
LEAST_COSINE = 0.98


class Disagreement(Exception):
    """Two sides of a benchmark give different answers. Says which row and by how much."""


def require_equal(
    ours: Sequence[Array], theirs: Sequence[Array], what: str, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference of two sides' answers.

    Raise Disagreement unless each is within t + t·|x| of its counterpart (t: the tolerance).
    """
    if len(ours) != len(theirs):
        raise Disagreement(f"{what}: {len(ours)} answers against {len(theirs)}")
    worst = 0.0
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one.shape != other.shape:
            raise Disagreement(f"{what}: row {i} has shape {one.shape} against {other.shape}")
        difference = np.abs(one - other)
        if not (difference <= tolerance + tolerance * np.abs(other)).all():
            raise Disagreement(f"{what}: row {i} differs by {difference.max():.3g}: {one} against {other}")
        worst = max(worst, float(difference.max()))
    return worst


def require_similar(ours: Sequence[Array], theirs: Sequence[Array], what: str) -> float:
    """Return the least cosine between two sides' vectors. Raise Disagreement below LEAST_COSINE."""
    cosines = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(ours, theirs, strict=True)]
    if min(cosines) < LEAST_COSINE:
        raise Disagreement(f"{what}: cosine {min(cosines):.4f}; the least is {LEAST_COSINE}")
    return min(cosines)


def require_distinct(answers: Sequence[Array], swapped: Sequence[Array], what: str) -> None:
    """Raise Disagreement if a row's answer is the same under another adapter, since that would hide a mix-up."""
    for i, (one, other) in enumerate(zip(answers, swapped, strict=True)):
        if np.allclose(one, other, rtol=10 * TOLERANCE, atol=10 * TOLERANCE):
            raise Disagreement(f"{what}: row {i} gives the same answer under another adapter")


def require_same_label(ours: Sequence[Array], theirs: Sequence[Array], what: str, tolerance: float) -> None:
    """Raise Disagreement if a best label differs by more than the tolerance explains."""
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        lead = other.max() - other[one.argmax()]
        if lead > 2 * tolerance * (1 + np.abs(other).max()):
            raise Disagreement(f"{what}: row {i} has another best label: {one} against {other}")

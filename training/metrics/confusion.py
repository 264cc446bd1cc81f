"""The confusion matrix and its commonest mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mistake(NamedTuple):
    """`rows` of the `of` rows of the label `truth` were predicted `predicted`."""

    truth: str
    predicted: str
    rows: int
    of: int


def confusion(truth: Sequence[int], predicted: Sequence[int], labels: int) -> list[list[int]]:
    """Return (labels, labels) counts: the line is the true class, the column the predicted one."""
    cells = np.asarray(truth, np.int64) * labels + np.asarray(predicted, np.int64)
    return [list(map(int, row)) for row in np.bincount(cells, minlength=labels**2).reshape(labels, labels)]


def worst(matrix: Sequence[Sequence[int]], labels: Sequence[str], most: int = 10) -> list[Mistake]:
    """Return at most `most` of the commonest mistakes; of equals, those of rarer labels come first."""
    mistakes = [
        Mistake(labels[i], labels[j], rows, sum(row))
        for i, row in enumerate(matrix)
        for j, rows in enumerate(row)
        if i != j and rows
    ]
    return sorted(mistakes, key=lambda mistake: (-mistake.rows, mistake.of))[:most]

"""Chooses unlabelled rows to label next: those the adapter is least sure of, spread over the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Candidates for each row to choose. More of them make the choice more diverse and its rows less uncertain.
_CANDIDATES = 10

Margins = npt.NDArray[np.float64]


def margins(probabilities: Sequence[npt.NDArray[np.floating[Any]]]) -> Margins:
    """Return each row's smallest gap between its two likeliest labels, from (labels,) or (tokens, labels).

    Source: Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for Information Extraction", 2001.
    """
    gaps = []
    for row in probabilities:
        ordered = np.sort(np.atleast_2d(np.asarray(row, np.float64)), -1)
        gaps.append((ordered[:, -1] - ordered[:, -2]).min(initial=1.0))
    return np.asarray(gaps)


def choose(
    gaps: Margins,
    embeddings: npt.NDArray[np.floating[Any]],
    rows: int,
    labelled: npt.NDArray[np.floating[Any]] | None = None,
) -> list[int]:
    """Return the positions of at most `rows` rows in the order to label them; equal inputs give equal positions.

    `gaps` are `margins`, `embeddings` (rows, width), `labelled` those of rows with labels. Among the rows of the
    smallest gaps, each next row is the farthest from all chosen and labelled ones; of equals it is the less sure.
    Copies are left out.
    Source: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018.
    """
    if len(gaps) != len(embeddings):
        raise ValueError(f"{len(gaps)} margins for {len(embeddings)} embeddings")
    candidates = np.argsort(gaps, kind="stable")[: _CANDIDATES * rows]
    points = np.asarray(embeddings, np.float64)[candidates]
    distances = np.full(len(candidates), np.inf)
    for known in () if labelled is None else np.asarray(labelled, np.float64):
        distances = np.minimum(distances, np.linalg.norm(points - known, axis=1))
    chosen: list[int] = []
    while len(chosen) < min(rows, len(candidates)):
        # Without any labelled row all are as far, and the least sure is first.
        farthest = int(distances.argmax())
        if distances[farthest] <= 0:
            break
        chosen.append(int(candidates[farthest]))
        distances = np.minimum(distances, np.linalg.norm(points - points[farthest], axis=1))
        distances[farthest] = 0
    return chosen

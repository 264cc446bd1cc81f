"""Finds labels that are probably wrong, by confident learning (cleanlab)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.training.data.encoding import EncodedRow
from rootstock.training.errors import extra

Probabilities = npt.NDArray[np.floating[Any]]

# One process: starting a pool takes longer than checking these rows.
_SETTINGS: dict[str, Any] = {"return_indices_ranked_by": "self_confidence", "n_jobs": 1}


class DoubtfulLabel(NamedTuple):
    """A label that models which did not see it find unlikely: its row, the word of a sentence, and both classes.

    `word` is None for a label of a whole text. The probabilities are those of the given and of the likely class.
    """

    row: int
    word: int | None
    given: int
    likely: int
    given_probability: float
    likely_probability: float


def doubtful_labels(given: Sequence[int], probabilities: Probabilities) -> list[DoubtfulLabel]:
    """Return the labels of texts that are probably wrong, the likeliest first.

    `probabilities` (rows, classes) come from models that did not see the row. A class with very few rows
    has none, and neither have rows of one class. Raise MissingExtra without cleanlab.
    Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
    """
    if len(set(given)) < 2:
        return []
    with extra("checks for label noise"):
        from cleanlab.filter import find_label_issues
    with _rare_classes():
        suspects = find_label_issues(np.asarray(given), probabilities, **_SETTINGS)
    return [_doubt(int(row), None, given[row], probabilities[row]) for row in suspects]


def doubtful_tags(given: Sequence[Sequence[int]], probabilities: Sequence[Probabilities]) -> list[DoubtfulLabel]:
    """Return the tags of words that are probably wrong, the likeliest first.

    `probabilities` has (words, classes) of each sentence. Raise MissingExtra without cleanlab.
    Source: Wang and Mueller, "Detecting Label Errors in Token Classification Data", 2022.
    """
    if len({tag for tags in given for tag in tags}) < 2:
        return []
    with extra("checks for label noise"):
        from cleanlab.token_classification.filter import find_label_issues
    with _rare_classes():
        suspects = find_label_issues([list(tags) for tags in given], list(probabilities), **_SETTINGS)
    return [_doubt(int(row), int(word), given[row][word], probabilities[row][word]) for row, word in suspects]


def doubtful_label_sets(given: Sequence[Sequence[int]], probabilities: Probabilities) -> list[tuple[int, int]]:
    """Return the row and the label of each label that a row probably should not have, or lacks.

    `given` holds the labels of each row, `probabilities` (rows, labels) those of models that did not see it. A
    label without rows, or of all rows, has no doubts. Raise MissingExtra without cleanlab.
    Source: Thyagarajan et al., "Identifying Incorrect Annotations in Multi-Label Classification Data", 2023.
    """
    with extra("checks for label noise"):
        from cleanlab.filter import find_label_issues
    flags = np.zeros_like(probabilities, np.int64)
    for row, labels in enumerate(given):
        flags[row, list(labels)] = 1
    doubts = []
    for label in range(len(flags[0])):
        if len(set(flags[:, label].tolist())) < 2:
            continue
        pairs = np.stack([1 - probabilities[:, label], probabilities[:, label]], 1)
        with _rare_classes():
            suspects = find_label_issues(flags[:, label], pairs, **_SETTINGS)
        doubts += [(int(row), label) for row in suspects]
    return doubts


@contextmanager
def _rare_classes() -> Iterator[None]:
    """Silence cleanlab's warning that a class has too few rows to doubt its labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        yield


def _doubt(row: int, word: int | None, given: int, probabilities: Probabilities) -> DoubtfulLabel:
    likely = int(probabilities.argmax())
    return DoubtfulLabel(row, word, given, likely, float(probabilities[given]), float(probabilities[likely]))


def of_words(probabilities: Probabilities, row: EncodedRow) -> Probabilities:
    """Return (words, classes) of (tokens, classes): those of each word's first token.

    A word that was cut off has no token. It counts as sure of its tag, so that nothing doubts it.
    """
    sure = np.eye(probabilities.shape[1], dtype=probabilities.dtype)
    return np.stack(
        [sure[tag] if at is None else probabilities[at] for tag, at in zip(row.words, row.first, strict=True)]
    )

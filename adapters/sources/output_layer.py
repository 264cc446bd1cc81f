"""One linear layer on an embedding: the form in which every imported head is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.bundle.labels import given_labels
from rootstock.adapters.errors import SourceError
from rootstock.adapters.spec import PROBLEM_TYPES, Array

_SINGLE = "single_label_classification"


@dataclass(frozen=True)
class OutputLayer:
    """A linear layer: `weight` (labels, hidden) and `bias` (labels,), with one label for each output.

    `problem_type` decides how a server turns the outputs into scores. With `normalize`, the layer reads the
    embedding divided by its L2 norm. Raise SourceError for NaN and infinity.
    """

    weight: Array
    bias: Array
    labels: tuple[str, ...]
    problem_type: str
    normalize: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise SourceError("coef or intercept holds NaN or infinity in fp32; fit the model on finite features")

    def on_scaled(self, mean: npt.ArrayLike, scale: npt.ArrayLike) -> OutputLayer:
        """Return the layer for features x, where this one reads (x - mean) / scale.

        `mean` and `scale` have one number for each feature, or one for all. Raise SourceError for other shapes.
        """
        width = self.weight.shape[1]
        shifts, scales = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
        for array in (shifts, scales):
            if array.shape not in ((1,), (width,)):
                raise SourceError(
                    f"the scaler has the shape {list(array.shape)}, and the head reads {width} features"
                )
        # The layer itself refuses what is not finite.
        with np.errstate(all="ignore"):
            weight = self.weight / scales
            bias = self.bias - (weight * shifts).sum(axis=1)
            return replace(self, weight=weight.astype(np.float32), bias=bias.astype(np.float32))

    def with_labels(self, labels: Sequence[str]) -> OutputLayer:
        """Return the layer with other labels; raise SourceError if their number differs."""
        if len(labels) != len(self.labels):
            raise SourceError(
                f"{len(labels)} labels for {len(self.labels)} outputs; give one label for each output"
            )
        return replace(self, labels=given_labels(labels))


def output_layer(
    coef: npt.ArrayLike, intercept: npt.ArrayLike, labels: Sequence[Any], problem_type: str | None = None
) -> OutputLayer:
    """Return the layer of a linear model's `coef` (outputs, hidden) and `intercept` (outputs,).

    One row for two labels is scikit-learn's form of a binary classifier: the row scores the second label, and
    the first has the score 0. `problem_type` is by default `regression` for one label, else
    `single_label_classification`. Raise SourceError for shapes that do not fit the labels, and for NaN and
    infinity.
    """
    weight, names = _matrix(coef, "coef"), given_labels([str(label) for label in labels])
    if not names:
        raise SourceError("no labels were given; give one label for each output")
    # scikit-learn's intercept is the number 0.0 for a model that is fitted without one.
    if np.shape(intercept) not in ((), (len(weight),)):
        raise SourceError(
            f"intercept has shape {list(np.shape(intercept))}; expected {[len(weight)]}, one number for each row "
            "of coef"
        )
    bias = np.broadcast_to(np.asarray(intercept, np.float64), (len(weight),))
    kind = problem_type or ("regression" if len(names) == 1 else _SINGLE)
    if kind not in PROBLEM_TYPES:
        raise SourceError(f"the problem type {kind!r} is unknown; use one of: {', '.join(PROBLEM_TYPES)}")
    if len(names) == 2 and len(weight) == 1 and kind == _SINGLE:
        weight = np.concatenate([np.zeros_like(weight), weight])
        bias = np.concatenate([[0.0], bias])
    if len(weight) != len(names):
        raise SourceError(f"coef has {len(weight)} rows for {len(names)} labels; give one row for each label")
    # A number beyond fp32 becomes infinity, which the layer refuses.
    with np.errstate(over="ignore"):
        return OutputLayer(weight.astype(np.float32), bias.astype(np.float32), names, kind)


def _matrix(value: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim == 1 and array.size:
        array = array[None]
    if array.ndim != 2 or not array.size:
        raise SourceError(f"{name} is no matrix of numbers, one row for each output")
    return array

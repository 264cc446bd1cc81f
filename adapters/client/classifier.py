"""A text-classification adapter behind a server, with the methods of a fitted scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.predictions import ClassificationResult

if TYPE_CHECKING:
    from rootstock.adapters.client.client import Client

# Any text has a score for every label.
_PROBE = "a"


class RemoteClassifier:
    """A fitted classifier of texts, whose labels are the adapter's.

    `X` is a list, array or series of texts, or an array of two columns for pairs of texts. The scores are the
    server's: of an adapter with several labels a text, they are independent and do not sum to 1.
    """

    def __init__(self, client: Client, model: str, parameters: Mapping[str, Any]) -> None:
        """Ask `model` through `client`, with `parameters` of the task."""
        self._client = client
        self._model = model
        self._parameters = {**parameters, "top_k": None}

    @cached_property
    def classes_(self) -> NDArray[np.str_]:
        """Return the labels in sorted order, as scikit-learn's metrics expect them; shape (labels,)."""
        result = self._client.predict(self._model, _PROBE, ClassificationResult, **self._parameters)
        return np.array(sorted(result.scores))

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Do nothing, as scikit-learn's FrozenEstimator does; `rootstock train` trains adapters."""
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return each label's score for each text, columns as `classes_`; fp32, shape (texts, labels)."""
        results = self._client.predict_many(self._model, _inputs(X), ClassificationResult, **self._parameters)
        rows = [[result.scores[label] for label in self.classes_] for result in results]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes_))

    def predict(self, X: Any) -> NDArray[np.str_]:  # noqa: N803
        """Return the label with the highest score for each text; shape (texts,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[np.str_] = self.classes_[best]
        return labels

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """Return the accuracy, the share of texts whose label is that of `y`, weighted by `sample_weight`."""
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        return float(np.average(self.predict(X) == np.asarray(y), weights=weights))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn itself asks for them.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(string=True, two_d_array=False),
        )


def _inputs(X: Any) -> list[str | dict[str, str]]:  # noqa: N803
    if isinstance(X, str | Mapping) or not isinstance(X, Iterable):
        raise Misused(f"X is one {type(X).__name__}; give a list with one text for each row")
    rows = X.to_numpy() if hasattr(X, "to_numpy") else X
    return [_input(row) for row in rows]


def _input(row: Any) -> str | dict[str, str]:
    if isinstance(row, str):
        return str(row)
    if isinstance(row, list | tuple | np.ndarray) and len(row) == 2 and all(isinstance(one, str) for one in row):
        return {"text": str(row[0]), "text_pair": str(row[1])}
    raise Misused(f"a row of X is {row!r}; give a text or two texts")

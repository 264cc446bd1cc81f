"""A classification adapter behind a server, with the methods of a fitted scikit-learn classifier."""

from __future__ import annotations

import wave
from base64 import b64decode
from collections.abc import Iterable, Mapping
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.predictions import (
    AudioClassificationResult,
    ClassificationResult,
    ImageClassificationResult,
)
from rootstock.adapters.media import AudioFile, ImageFile, MediaFile, media_file

if TYPE_CHECKING:
    from rootstock.adapters.client.client import Client

# A PNG file of 32 × 32 black pixels.
_BLACK = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAGUlEQVR4nO3BMQEAAADCoPVP7WENoAAAAG4MIAABt9NlCQAAAABJ"
    "RU5ErkJggg=="
)
_KINDS: Mapping[str, type[ClassificationResult]] = {
    kind.task: kind for kind in (ClassificationResult, ImageClassificationResult, AudioClassificationResult)
}


class RemoteClassifier:
    """A fitted classifier of texts, images or recordings, whose labels are the adapter's.

    `X` is a list, array or series of texts or files, or an array of two columns for pairs of texts. A file is a
    path, its bytes, or an image of Pillow. The scores are the server's: of an adapter with several labels an
    input, they are independent and do not sum to 1.
    """

    def __init__(self, client: Client, model: str, parameters: Mapping[str, Any]) -> None:
        """Ask `model` through `client`, with `parameters` of the task."""
        self._client = client
        self._model = model
        self._parameters = {**parameters, "top_k": None}

    @cached_property
    def classes_(self) -> NDArray[np.str_]:
        """Return the labels in sorted order, as scikit-learn's metrics expect them; shape (labels,)."""
        # Any input has a score for every label.
        result = self._client.predict(self._model, _probe(self._kind.task), self._kind, **self._parameters)
        return np.array(sorted(result.scores))

    @cached_property
    def _kind(self) -> type[ClassificationResult]:
        # The server refuses a model of any other task.
        return _KINDS.get(self._client.model(self._model)["task"], ClassificationResult)

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Do nothing, as scikit-learn's FrozenEstimator does; `rootstock train` trains adapters."""
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return each label's score for each input, columns as `classes_`; fp32, shape (inputs, labels)."""
        results = self._client.predict_many(self._model, _inputs(X), self._kind, **self._parameters)
        rows = [[result.scores[label] for label in self.classes_] for result in results]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.classes_))

    def predict(self, X: Any) -> NDArray[np.str_]:  # noqa: N803
        """Return the label with the highest score for each input; shape (inputs,)."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[np.str_] = self.classes_[best]
        return labels

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:  # noqa: N803
        """Return the accuracy, the share of inputs whose label is that of `y`, weighted by `sample_weight`."""
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


def _inputs(X: Any) -> list[str | dict[str, str] | MediaFile]:  # noqa: N803
    if isinstance(X, str | bytes | Mapping) or not isinstance(X, Iterable):
        raise Misused(f"X is one {type(X).__name__}; give a list with one input for each row")
    rows = X.to_numpy() if hasattr(X, "to_numpy") else X
    return [_input(row) for row in rows]


def _input(row: Any) -> str | dict[str, str] | MediaFile:
    if isinstance(row, str):
        return str(row)
    if isinstance(row, list | tuple | np.ndarray) and len(row) == 2 and all(isinstance(one, str) for one in row):
        return {"text": str(row[0]), "text_pair": str(row[1])}
    try:
        file = media_file(row)
    except (OSError, ValueError) as error:
        raise Misused(f"a row of X is no file that can be sent: {error}") from None
    if file is None:
        raise Misused(f"a row of X is {row!r}; give a text, two texts or a file")
    return file


def _probe(task: str) -> str | MediaFile:
    """Return an input of a task: a letter, a black image, or silence."""
    if task == ImageClassificationResult.task:
        return ImageFile(b64decode(_BLACK))
    if task == AudioClassificationResult.task:
        return AudioFile(_silence())
    return "a"


def _silence() -> bytes:
    """Return a second of silence as a WAV file."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(32_000))
    return file.getvalue()

"""The task zero-shot-image-classification: an image is compared with a text for each label of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rootstock.adapters.media import ImageFile
from rootstock.adapters.spec import Adapter, Array, TextTower
from rootstock.service.engine.encode.modalities.reader import MediaReader
from rootstock.service.engine.encode.sample import Sample
from rootstock.service.engine.encode.tasks.media_task import MediaTask
from rootstock.service.engine.encode.tasks.scores import activate, ranking
from rootstock.service.engine.encode.tasks.task import ANSWER_ITEM_BYTES
from rootstock.service.engine.encode.tasks.zero_shot.candidate_labels import (
    PARAMETERS,
    candidate_labels,
    check_candidates,
    hypotheses,
)

TEMPLATE = "This is a photo of {}."


class ZeroShotImageClassification(MediaTask):
    """The task that compares an image with labels, as transformers' ZeroShotImageClassificationPipeline does.

    `candidate_labels` and `hypothesis_template` are those of zero-shot-classification. The engine of the tower
    for images answers with the image's vector. `label_texts` are the inputs of the tower for texts, and
    `compare` makes the prediction of the vectors of both.
    """

    name = "zero-shot-image-classification"
    takes: tuple[type, ...] = (ImageFile,)
    parameters = PARAMETERS

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter unless there is at least one label and the template has one place for it."""
        super().check(parameters)
        check_candidates(parameters, TEMPLATE)

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one item for each label."""
        labels = candidate_labels(parameters)
        return ANSWER_ITEM_BYTES * len(labels) + sum(map(len, labels))

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[Sample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        reader: MediaReader,
    ) -> Array:
        """Return the image's vector, (dimensions,)."""
        return raws[0]


def label_texts(parameters: Mapping[str, Any]) -> list[str]:
    """Return the text of each candidate label. Raise InvalidParameter for an unfit template."""
    return hypotheses(parameters, TEMPLATE)


def compare(image: Array, texts: Array, tower: TextTower, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the candidate labels with their scores, best first.

    `image` is the vector of an image, (dimensions,), and `texts` are those of the labels, (labels, dimensions).
    """
    logits = tower.scale * (_normalised(texts) @ _normalised(image)) + tower.bias
    return ranking(activate(tower.activation, logits), tuple(candidate_labels(parameters)), None)


def _normalised(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)

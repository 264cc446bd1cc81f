"""The tasks image-classification and audio-classification: single label, multi-label and regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.reader import MediaReader
from rootstock.service.engine.encode.sample import Sample
from rootstock.service.engine.encode.tasks.media_task import MediaTask
from rootstock.service.engine.encode.tasks.scores import (
    SCORING,
    check_calibrated,
    check_scoring,
    default_function,
    label_scores,
    ranking,
)
from rootstock.service.engine.encode.tasks.task import ANSWER_ITEM_BYTES


class ImageClassification(MediaTask):
    """The task that returns an image's labels by score, as transformers' ImageClassificationPipeline does.

    The prediction is a list of labels, best first: the first five, or with `top_k` as many as it says; null means
    all. `function_to_apply` is sigmoid, softmax or none. By default the problem type decides it. With
    `calibrated` the logits are first divided by the adapter's temperature.
    """

    name = "image-classification"
    takes: tuple[type, ...] = (ImageFile,)
    parameters = SCORING
    # The labels that the pipeline returns unless `top_k` says otherwise; None means all.
    most_labels: int | None = 5

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter for a value that a parameter does not take, such as a `top_k` below 1."""
        super().check(parameters)
        check_scoring(parameters)

    def check_adapter(self, adapter: Adapter, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidParameter if calibrated scores are asked of an adapter whose bundle has no calibration."""
        check_calibrated(adapter, parameters)

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one item for each returned label."""
        labels = len(adapter.labels)
        return ANSWER_ITEM_BYTES * min(parameters.get("top_k", self.most_labels) or labels, labels)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[Sample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        reader: MediaReader,
    ) -> list[dict[str, Any]]:
        """Return a list of labels with their scores."""
        scores = label_scores(raws[0], adapter, parameters, self._function(adapter))
        return ranking(scores, adapter.labels, parameters.get("top_k", self.most_labels))

    def _function(self, adapter: Adapter) -> str:
        return default_function(adapter)


class AudioClassification(ImageClassification):
    """The task that returns a recording's labels by score, as transformers' AudioClassificationPipeline does.

    It differs from ImageClassification in two defaults: all labels, and softmax also for a single label.
    """

    name = "audio-classification"
    takes = (AudioFile,)
    most_labels = None

    def _function(self, adapter: Adapter) -> str:
        single = adapter.problem_type not in ("regression", "multi_label_classification")
        return "softmax" if single else default_function(adapter)

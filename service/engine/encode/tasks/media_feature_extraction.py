"""The tasks image-feature-extraction and audio-feature-extraction: one vector for each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.encode.modalities.reader import MediaReader
from rootstock.service.engine.encode.sample import Sample
from rootstock.service.engine.encode.tasks.feature_extraction import vector_bytes
from rootstock.service.engine.encode.tasks.media_task import MediaTask


class ImageFeatureExtraction(MediaTask):
    """The task that returns an image's vector: the head pools, normalises and projects."""

    name = "image-feature-extraction"
    takes: tuple[type, ...] = (ImageFile,)

    def answer_bytes(self, adapter: Adapter, parameters: Mapping[str, Any], tokens: int) -> int:
        """Estimate one number for each row of the head's projection, or 0 bytes without a projection."""
        return vector_bytes(adapter)

    def predict(
        self,
        raws: Sequence[Array],
        rows: Sequence[Sample],
        adapter: Adapter,
        parameters: Mapping[str, Any],
        reader: MediaReader,
    ) -> list[float]:
        """Return the vector as a list of numbers."""
        vector: list[float] = raws[0].tolist()
        return vector


class AudioFeatureExtraction(ImageFeatureExtraction):
    """The task that returns a recording's vector: the head pools, normalises and projects."""

    name = "audio-feature-extraction"
    takes = (AudioFile,)

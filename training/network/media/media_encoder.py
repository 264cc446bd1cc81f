"""Images and recordings as rows, and their values by the foundation's own processor from transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.adapters.audio.resampling import resample
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.training.data.example import Example
from rootstock.training.data.media.decoding import decoded_audio, decoded_image, png, read_file, wav
from rootstock.training.network.media.media_inputs import MediaInputs
from rootstock.training.network.media.media_row import MediaRow
from rootstock.training.network.media.media_views import (
    changed_image,
    changed_samples,
    masked_spectrogram,
    patches,
)
from rootstock.training.problems.classes import ClassProblem
from rootstock.training.problems.problem import Problem
from rootstock.training.recipe.augmentation_section import AudioAugmentation, ImageAugmentation

if TYPE_CHECKING:
    import torch

_RATE = 16000
# The most bytes of a golden file: twelve in base64 take 3 MiB of the 4 MiB that a text in a bundle may have.
_GOLDEN_BYTES = 192 * 2**10


@dataclass(frozen=True)
class MediaEncoder:
    """An encoder of images or recordings for a foundation.

    `processor` is transformers' image processor or feature extractor. `augmentation` makes the changed copies,
    drawn from `seed`.
    """

    processor: Any
    spec: FoundationSpec
    labels: tuple[str, ...]
    device: torch.device
    augmentation: ImageAugmentation | AudioAugmentation | None = None
    seed: int = 0

    @classmethod
    def of(
        cls,
        files: FoundationFiles,
        spec: FoundationSpec,
        labels: tuple[str, ...],
        device: torch.device,
        augmentation: ImageAugmentation | AudioAugmentation | None = None,
        seed: int = 0,
    ) -> MediaEncoder:
        """Return the encoder of a foundation's files."""
        from transformers import AutoFeatureExtractor, AutoImageProcessor

        if spec.modality == "image":
            # Of transformers' processors, the one on Pillow is the one that needs no further package.
            processor = AutoImageProcessor.from_pretrained(files.folder, backend="pil")
        else:
            processor = AutoFeatureExtractor.from_pretrained(files.folder)
        return cls(processor, spec, labels, device, augmentation, seed)

    @property
    def problem(self) -> Problem:
        """One class for each input."""
        return ClassProblem(self.labels)

    @property
    def preprocessing(self) -> None:
        """None: the foundation's processor alone prepares an image or a recording."""
        return None

    def on(self, device: torch.device) -> MediaEncoder:
        """Return the encoder for a network on another device."""
        return replace(self, device=device)

    def encode(self, examples: Sequence[Example]) -> list[MediaRow]:
        """Return labelled examples as rows."""
        ids = {label: i for i, label in enumerate(self.labels)}
        rows = []
        for example in examples:
            if example.file is None:
                raise ValueError(f"{example.text!r} is no file")
            row = MediaRow(example.file, (ids[example.labels[0]],))
            if None in self.spec.input_shape:
                row = replace(row, length=len(self.values(row)))
            rows.append(row)
        return rows

    def inputs(self, rows: Sequence[MediaRow]) -> MediaInputs:
        """Return rows ready to be batched."""
        return MediaInputs(rows, self, self.device)

    def views(self, rows: Sequence[MediaRow]) -> list[MediaRow]:
        """Return the changed copies of rows, all rows once for each view; none without augmentation."""
        if self.augmentation is None:
            return []
        copies = [replace(row, view=view) for view in range(1, self.augmentation.views + 1) for row in rows]
        alpha = getattr(self.augmentation, "cutmix_alpha", 0.0)
        return patches(copies, alpha, self.seed) if alpha else copies

    def values(self, row: MediaRow) -> Array:
        """Return a row as the trunk reads it, in the foundation's input_shape."""
        if self.spec.modality == "image":
            return self._pixels(row)
        samples = self._samples(row)
        values = self._extracted(samples)
        change = self.augmentation
        if row.view and isinstance(change, AudioAugmentation) and values.ndim == 2:
            mels_first = self.spec.inputs[0] == "input_features"
            return masked_spectrogram(values, change, self._chance(row), mels_first)
        return values

    def picture(self, row: MediaRow) -> Any:
        """Return the image of a row, in RGB, with the changes of its view and without its patch."""
        image = decoded_image(_bytes_of(row))
        if row.view and isinstance(self.augmentation, ImageAugmentation):
            return changed_image(image, self.augmentation, int(self._chance(row).integers(2**31)))
        return image

    def shown(self, row: MediaRow) -> Array:
        """Return a row as people look at it: an RGB image, (height, width, 3) up to 1, or samples, (samples,)."""
        if self.spec.modality != "image":
            return self._samples(row)
        if row.patch is None:
            return np.asarray(self.picture(row), np.float32) / np.float32(255)
        return self.prepared_image(row)

    def prepared_image(self, row: MediaRow) -> Array:
        """Return the image that the trunk reads, (height, width, 3) up to 1, without the normalisation."""
        values = self._pixels(row)
        low, high = float(values.min()), float(values.max())
        if self.processor.do_normalize:
            mean, deviation = (
                np.array(one, np.float32)[:, None, None]
                for one in (self.processor.image_mean, self.processor.image_std)
            )
            values, low, high = values * deviation + mean, 0.0, 1.0
        shares = np.clip((values - low) / max(1e-6, high - low), 0, 1)
        return np.asarray(shares.transpose(1, 2, 0), np.float32)

    def golden_input(self, example: Example, row: MediaRow) -> tuple[ImageFile | AudioFile, MediaRow]:
        """Return a row as a PNG in RGB, or as a WAV at the foundation's rate, and the row of this file.

        A large image is made smaller, and a long recording is cut, because a bundle has a limit.
        """
        data = _bytes_of(row)
        image = self.spec.modality == "image"
        file = png(data, _GOLDEN_BYTES) if image else wav(data, self.rate, _GOLDEN_BYTES)
        row = replace(row, content=file.data)
        return file, replace(row, length=len(self.values(row))) if None in self.spec.input_shape else row

    def pixels_of(self, image: Any) -> Array:
        """Return an RGB image as the trunk reads it."""
        return np.asarray(self.processor(image, return_tensors="np")["pixel_values"][0], np.float32)

    def _pixels(self, row: MediaRow) -> Array:
        values = self.pixels_of(self.picture(row))
        if row.patch is not None:
            other = self.pixels_of(decoded_image(read_file(row.patch.file)))
            height, width = values.shape[1:]
            top, bottom, left, right = row.patch.box
            rows = slice(round(top * height), round(bottom * height))
            columns = slice(round(left * width), round(right * width))
            values = values.copy()
            values[:, rows, columns] = other[:, rows, columns]
        return values

    def _samples(self, row: MediaRow) -> Array:
        samples = resample(*decoded_audio(_bytes_of(row)), self.rate)
        if row.view and isinstance(self.augmentation, AudioAugmentation):
            return changed_samples(samples, self.augmentation, self._chance(row))
        return samples

    def _extracted(self, samples: Array) -> Array:
        made = self.processor(samples, sampling_rate=self.rate, return_tensors="np")
        return np.asarray(made[self.spec.inputs[0]][0], np.float32)

    @property
    def rate(self) -> int:
        """The samples a second of the recordings that the processor takes."""
        return int(getattr(self.processor, "sampling_rate", _RATE))

    def _chance(self, row: MediaRow) -> np.random.Generator:
        """Return the generator of a row's changes: the same row and view have the same changes."""
        return np.random.default_rng([self.seed, row.view, *row.file.name.encode()[-16:]])


def _bytes_of(row: MediaRow) -> bytes:
    return read_file(row.file) if row.content is None else row.content

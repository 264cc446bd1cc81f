"""Changed copies of images and recordings to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.errors import extra
from rootstock.training.network.media.media_row import Box, MediaRow, Patch
from rootstock.training.recipe.augmentation_section import AudioAugmentation, ImageAugmentation

if TYPE_CHECKING:
    from PIL.Image import Image

_SPANS = 2
_RAND_AUGMENT_OPERATIONS = 2


def changed_image(image: Image, change: ImageAugmentation, seed: int) -> Image:
    """Return a changed copy of an RGB image, of the same size; the same seed gives the same copy."""
    import torch
    from PIL.Image import fromarray

    values = torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)[None]
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        for operation in _operations(change, (image.height, image.width)):
            values = operation(values).clamp(0, 1)
    return fromarray((values[0].permute(1, 2, 0) * 255).round().byte().numpy())


def _operations(change: ImageAugmentation, size: tuple[int, int]) -> list[Any]:
    with extra("changes to images"):
        from kornia import augmentation as kornia
        from kornia.augmentation.auto import RandAugment
    operations: list[Any] = []
    if change.flip:
        operations.append(kornia.RandomHorizontalFlip(p=change.flip))
    if change.rotation:
        # What turns into the picture is the picture's own edge, mirrored: black corners would be a new feature.
        operations.append(kornia.RandomAffine(change.rotation, padding_mode="reflection", p=1.0))
    if change.crop < 1:
        operations.append(kornia.RandomResizedCrop(size, scale=(change.crop, 1.0), p=1.0))
    if change.colour:
        operations.append(kornia.ColorJitter(change.colour, change.colour, change.colour, p=1.0))
    if change.rand_augment:
        operations.append(RandAugment(_RAND_AUGMENT_OPERATIONS, change.rand_augment))
    return operations


def patches(rows: Sequence[MediaRow], alpha: float, seed: int) -> list[MediaRow]:
    """Return rows that each have a box of another row's image on them (Yun et al., CutMix, 2019)."""
    chance = np.random.default_rng(seed)
    changed = []
    for row in rows:
        other = rows[int(chance.integers(len(rows)))]
        side = float(np.sqrt(1 - chance.beta(alpha, alpha)))
        top, left = (float(chance.uniform(0, 1 - side)) for _ in range(2))
        box: Box = (top, top + side, left, left + side)
        changed.append(replace(row, patch=Patch(other.file, other.targets[0], box)))
    return changed


def changed_samples(samples: Array, change: AudioAugmentation, chance: np.random.Generator) -> Array:
    """Return a changed copy of a recording (samples,), of the same length."""
    length = len(samples)
    if change.shift:
        by = round(chance.uniform(-change.shift, change.shift) * length)
        moved = np.zeros_like(samples)
        moved[max(0, by) : length + min(0, by)] = samples[max(0, -by) : length - max(0, by)]
        samples = moved
    if change.noise:
        loudness = float(np.sqrt(np.mean(samples**2))) * chance.uniform(0, change.noise)
        samples = samples + np.float32(loudness) * chance.standard_normal(length).astype(np.float32)
    if change.time_mask:
        samples = _silenced(samples, 0, change.time_mask, chance, 0.0)
    return samples


def masked_spectrogram(
    values: Array, change: AudioAugmentation, chance: np.random.Generator, mels_first: bool
) -> Array:
    """Return a spectrogram without some bands of frequencies (Park et al., SpecAugment, 2019).

    `values` are (frames, bands), or (bands, frames) if `mels_first`.
    """
    if not change.frequency_mask:
        return values
    return _silenced(values, 0 if mels_first else 1, change.frequency_mask, chance, float(values.mean()))


def _silenced(values: Array, axis: int, share: float, chance: np.random.Generator, silence: float) -> Array:
    """Return values with up to `share` of an axis silenced, in two spans."""
    values = np.moveaxis(values.copy(), axis, 0)
    length = len(values)
    for _ in range(_SPANS):
        size = int(chance.uniform(0, share / _SPANS) * length)
        start = int(chance.integers(0, length - size + 1))
        values[start : start + size] = silence
    return np.ascontiguousarray(np.moveaxis(values, 0, axis))

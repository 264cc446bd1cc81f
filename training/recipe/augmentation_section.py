"""The section of a recipe about changes to its training rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rootstock.training.recipe.fields import NotNegative, Probability, RecipeSection

_Views = Annotated[int, Field(ge=1, le=64)]


class ImageAugmentation(RecipeSection):
    """Changes to training images. A row has `views` changed copies, of which each epoch takes one at random."""

    views: _Views = Field(default=4, description="The number of changed copies of each row.")
    flip: Probability = Field(default=0.0, description="Chance of mirroring an image, left to right.")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Cut out a part of an image, of at least this share of its area; 1: never."
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="Turn an image by up to this many degrees, either way."
    )
    colour: Probability = Field(
        default=0.0, description="Change brightness, contrast and saturation by up to this share each."
    )
    rand_augment: Annotated[int, Field(ge=0, le=30)] = Field(
        default=0, description="RandAugment's magnitude, with two operations an image; 0: never."
    )
    cutmix_alpha: NotNegative = Field(
        default=0.0,
        description="Paste a box of another training image, and mix the labels by its area, by Beta(α, α); 0: "
        "never.",
    )


class AudioAugmentation(RecipeSection):
    """Changes to training recordings, with `views` as for images."""

    views: _Views = Field(default=4, description="The number of changed copies of each row.")
    shift: Probability = Field(
        default=0.0, description="Move a recording in time by up to this share of its length, either way."
    )
    noise: NotNegative = Field(
        default=0.0, description="Add white noise of up to this share of the recording's root mean square."
    )
    time_mask: Probability = Field(
        default=0.0, description="Share of the time that is silenced, in up to two spans (SpecAugment)."
    )
    frequency_mask: Probability = Field(
        default=0.0,
        description="Share of the frequencies that are silenced, in up to two bands (SpecAugment); for "
        "foundations that read spectrograms.",
    )


class Augmentation(RecipeSection):
    """Changes to training rows, new each epoch."""

    mixup_alpha: NotNegative = Field(
        default=0.0, description="Mix pairs of pooled embeddings and their labels, by Beta(α, α); 0: never."
    )
    token_dropout: Probability = Field(default=0.0, description="Share of tokens hidden from attention.")
    word_dropout: Probability = Field(default=0.0, description="Share of words left out of a text.")
    word_swap: Probability = Field(default=0.0, description="Share of words that change places with the next.")
    image: ImageAugmentation | None = Field(default=None, description="Changes to images.")
    audio: AudioAugmentation | None = Field(default=None, description="Changes to recordings.")

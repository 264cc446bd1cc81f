"""Recipes for folders of labelled images and recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.training.errors import DataError, RecipeError
from rootstock.training.proposal.proposal import propose
from rootstock.training.recipe.recipe_file import load_recipe


def test_a_folder_of_images_gives_a_recipe_on_vision(images: Path, tmp_path: Path) -> None:
    proposal = propose(images)
    recipe = proposal.source.recipe
    assert (recipe.task_type, recipe.base_model) == ("image-classification", "vision")
    assert recipe.description == "Gives an image one of the labels: down, up."
    written = tmp_path / "made.yaml"
    written.write_text(proposal.to_yaml(written))
    again = load_recipe(written)
    assert again.resolve(str(again.recipe.data.image_folder)) == images
    assert "because the subfolders hold images" in written.read_text()


def test_a_divided_folder_gives_a_recipe_with_given_splits(images: Path) -> None:
    for label in ("up", "down"):
        for part, numbers in (("train", range(14)), ("test", range(14, 20))):
            (images / part / label).mkdir(parents=True)
            for i in numbers:
                (images / label / f"{i:02}.png").rename(images / part / label / f"{i:02}.png")
        (images / label).rmdir()
    proposal = propose(images)
    assert proposal.source.recipe.data.splits.strategy == "given"
    assert proposal.choices["splits"] == "23 rows to train on, 5 to choose by, 12 to report on; by the folders"


def test_recordings_need_a_foundation_of_the_callers_choice(recordings: Path, tiny_wav2vec2: Path) -> None:
    with pytest.raises(RecipeError, match="recordings need a foundation of your choice"):
        propose(recordings)
    recipe = propose(recordings, [f"base_model={tiny_wav2vec2}"]).source.recipe
    assert recipe.task_type == "audio-classification"


def test_a_folder_of_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("-")
    with pytest.raises(DataError, match="hold no images and no recordings"):
        propose(tmp_path)

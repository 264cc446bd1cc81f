"""Labelled images and recordings: folders, tables of paths, duplicates, files that cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rootstock.training.data.dataset import read_dataset
from rootstock.training.data.media.decoding import decoded_image
from rootstock.training.data.split import split
from rootstock.training.errors import DataError
from rootstock.training.network.media.media_row import MediaRow
from rootstock.training.network.media.media_views import changed_image, changed_samples, patches
from rootstock.training.recipe.augmentation_section import AudioAugmentation, ImageAugmentation
from rootstock.training.recipe.recipe_file import RecipeFile, load_recipe
from rootstock.training.study.audit_run import audit_recipe

WriteRecipe = Callable[..., Path]


@pytest.fixture
def recipe(write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path) -> RecipeFile:
    return load_recipe(write_media_recipe(tiny_dinov2, images))


def _given(folder: Path) -> None:
    """Divide the images into the folders train and test."""
    for label in ("up", "down"):
        for part, numbers in (("train", range(14)), ("test", range(14, 20))):
            (folder / part / label).mkdir(parents=True)
            for i in numbers:
                shutil.move(folder / label / f"{i:02}.png", folder / part / label)
        (folder / label).rmdir()


def test_the_subfolders_of_a_folder_are_its_labels(recipe: RecipeFile, images: Path) -> None:
    (images / "up" / ".DS_Store").write_bytes(b"-")
    (images / "LICENSE").write_text("-")
    dataset = read_dataset(recipe)
    assert dataset.labels == ("down", "up")
    assert len(dataset.train.examples) == 40
    assert dataset.train.examples[0].text == "down/00.png"


def test_a_divided_folder_has_its_parts_as_splits(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path
) -> None:
    _given(images)
    source = load_recipe(write_media_recipe(tiny_dinov2, images, data={"splits": {"strategy": "given"}}))
    parts = split(read_dataset(source), source.recipe.data.splits)
    assert parts.sizes == {"train": 23, "validation": 5, "test": 12}


def test_a_divided_folder_is_not_read_as_labels(recipe: RecipeFile, images: Path) -> None:
    _given(images)
    with pytest.raises(DataError, match=r"train and test, which are no labels; set data.splits.strategy: given"):
        read_dataset(recipe)


def test_a_table_names_the_path_and_the_label_of_each_file(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, tmp_path: Path
) -> None:
    rows = [f"images/{label}/{i:02}.png,{label}" for label in ("up", "down") for i in range(20)]
    (tmp_path / "rows.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    data = {"image_folder": None, "path": "rows.csv", "path_column": "file"}
    dataset = read_dataset(load_recipe(write_media_recipe(tiny_dinov2, images, data=data)))
    assert [example.line for example in dataset.train.examples[:2]] == [2, 3]
    assert dataset.train.examples[0].file == tmp_path / "images/up/00.png"


def test_every_file_that_is_no_image_is_named(recipe: RecipeFile, images: Path) -> None:
    (images / "up" / "00.png").write_bytes(b"no image")
    whole = (images / "up" / "01.png").read_bytes()
    (images / "up" / "01.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="remove or repair what cannot be read") as refused:
        read_dataset(recipe)
    assert "up/00.png: not an image that can be read" in str(refused.value)
    assert "up/01.png: not an image that can be read" in str(refused.value)


def test_equal_pixels_in_two_files_are_one_input(recipe: RecipeFile, images: Path) -> None:
    image = decoded_image((images / "up" / "00.png").read_bytes())
    image.save(images / "up" / "copy.bmp")
    dataset = read_dataset(recipe)
    assert split(dataset, recipe.recipe.data.splits).duplicates == 1
    findings = audit_recipe(recipe, noise=False)
    assert [(f.kind, Path(f.file).name) for f in findings] == [("duplicate", "copy.bmp")]


def test_one_image_under_two_labels_is_refused(recipe: RecipeFile, images: Path) -> None:
    shutil.copy(images / "up" / "00.png", images / "down" / "copy.png")
    with pytest.raises(DataError, match=r"00.png: same content as .*copy.png with another label: 'up' and"):
        split(read_dataset(recipe), recipe.recipe.data.splits)


def test_an_empty_label_is_refused(recipe: RecipeFile, images: Path) -> None:
    (images / "sideways").mkdir()
    with pytest.raises(DataError, match="sideways: holds no files"):
        read_dataset(recipe)


def test_a_changed_image_depends_on_its_seed_alone(images: Path) -> None:
    image = decoded_image((images / "up" / "00.png").read_bytes())
    change = ImageAugmentation(flip=0.5, crop=0.7, rotation=20, colour=0.3, rand_augment=9)
    copies = [np.asarray(changed_image(image, change, seed)) for seed in (1, 1, 2)]
    assert copies[0].shape == np.asarray(image).shape
    assert (copies[0] == copies[1]).all()
    assert (copies[0] != copies[2]).any()


def test_an_image_without_changes_stays_as_it_is(images: Path) -> None:
    image = decoded_image((images / "up" / "00.png").read_bytes())
    assert (np.asarray(changed_image(image, ImageAugmentation(), 1)) == np.asarray(image)).all()


def test_a_patch_has_the_share_that_its_box_covers(images: Path) -> None:
    rows = [MediaRow(path, (i % 2,)) for i, path in enumerate(sorted(images.rglob("*.png")))]
    for row in patches(rows, 1.0, 0):
        assert row.patch is not None
        top, bottom, left, right = row.patch.box
        assert 0 <= top <= bottom <= 1
        assert 0 <= left <= right <= 1
        assert row.patch.share == pytest.approx((bottom - top) ** 2)


def test_a_changed_recording_keeps_its_length() -> None:
    samples = np.ones(1000, np.float32)
    moved = changed_samples(samples, AudioAugmentation(shift=0.2), np.random.default_rng(1))
    assert len(moved) == 1000
    assert 0 < (moved == 0).sum() <= 200
    masked = changed_samples(samples, AudioAugmentation(time_mask=0.4), np.random.default_rng(1))
    assert 0 < (masked == 0).sum() <= 400

"""Runs on images and recordings, from a folder to a bundle whose outputs PEFT and transformers give too."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.bundle.golden import Golden, read_golden
from rootstock.adapters.tasks import Modality
from rootstock.training.data.media.decoding import wav
from rootstock.training.errors import RecipeError
from rootstock.training.fit.candidate import draw_views, train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.network.construction import new_network
from rootstock.training.network.network import outputs, start_at_states
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.results import RunResult
from rootstock.training.run import run

WriteRecipe = Callable[..., Path]


def _peft_logits(foundation: Path, bundle: Path, values: Any, cls: bool) -> np.ndarray[Any, Any]:
    """The answer of PEFT's own model on transformers' trunk, with the head's arithmetic written out."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForAudioClassification, AutoModelForImageClassification

    auto: Any = AutoModelForImageClassification if cls else AutoModelForAudioClassification
    model = PeftModel.from_pretrained(auto.from_pretrained(foundation, num_labels=2), bundle).eval()
    trunk = getattr(model.base_model.model, model.base_model.model.base_model_prefix)
    head = load_file(bundle / "adapter_model.safetensors")
    with torch.no_grad():
        states = trunk(torch.from_numpy(values)).last_hidden_state[0]
    vector = states[0] if cls else states.mean(0)
    return (head["head.weight"] @ (vector / vector.norm()) + head["head.bias"]).numpy()


def _golden(outcome: RunResult, modality: Modality) -> Golden:
    return read_golden((outcome.results.bundle / GOLDEN).read_bytes(), modality)


def test_the_golden_answers_of_an_image_bundle_are_those_of_peft_and_transformers_from_its_pngs(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, tmp_path: Path
) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    change = {"views": 2, "flip": 0.5, "crop": 0.8, "rotation": 10, "colour": 0.2}
    recipe = write_media_recipe(tiny_dinov2, images, augmentation={"image": change})
    outcome = run(load_recipe(recipe), tmp_path / "out", force=True)
    manifest = json.loads((outcome.results.bundle / "bundle.json").read_text())
    assert manifest["preprocessing"] == {}
    assert all(".layer.1." in target for target in manifest["targets"])
    processor = AutoImageProcessor.from_pretrained(tiny_dinov2, backend="pil")
    report = outcome.results.report.read_text()
    assert "training inputs, each before changed copies of it" in report
    assert "the most confident errors" in report
    golden = _golden(outcome, "image")
    assert len(golden.inputs) == 10
    for value, raw in zip(golden.inputs, golden.outputs, strict=True):
        image = Image.open(io.BytesIO(value.data))
        assert (image.format, image.mode) == ("PNG", "RGB")
        pixels = processor(image, return_tensors="np")["pixel_values"]
        expected = _peft_logits(tiny_dinov2, outcome.results.bundle, pixels, cls=True)
        np.testing.assert_allclose(raw, expected, atol=1e-4, rtol=1e-4)


def test_golden_files_of_large_images_and_long_recordings_fit_into_a_bundle(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, tmp_path: Path
) -> None:
    import soundfile
    from PIL import Image
    from transformers import AutoImageProcessor

    chance = np.random.default_rng(0)
    for path in images.rglob("*.png"):
        light = np.asarray(Image.open(path).resize((420, 420)))
        Image.fromarray(light // 2 + chance.integers(0, 100, light.shape, np.uint8)).save(path)
    outcome = run(load_recipe(write_media_recipe(tiny_dinov2, images)), tmp_path / "out", force=True)
    processor = AutoImageProcessor.from_pretrained(tiny_dinov2, backend="pil")
    golden = _golden(outcome, "image")
    assert len(golden.inputs) == 10
    for value, raw in zip(golden.inputs, golden.outputs, strict=True):
        image = Image.open(io.BytesIO(value.data))
        assert image.size == (210, 210)
        pixels = processor(image, return_tensors="np")["pixel_values"]
        expected = _peft_logits(tiny_dinov2, outcome.results.bundle, pixels, cls=True)
        np.testing.assert_allclose(raw, expected, atol=1e-4, rtol=1e-4)

    samples = chance.standard_normal(160_000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 16000, format="WAV", subtype="FLOAT")
    cut = wav((tmp_path / "long.wav").read_bytes(), 16000, 2**17)
    begin = soundfile.read(io.BytesIO(cut.data), dtype="float32")[0]
    assert len(cut.data) <= 2**17 < len(cut.data) + 1024
    assert (begin == samples[: len(begin)]).all()


def test_the_golden_answers_of_an_audio_bundle_are_those_of_peft_and_transformers_from_its_wavs(
    write_media_recipe: WriteRecipe, tiny_wav2vec2: Path, recordings: Path, tmp_path: Path
) -> None:
    import soundfile
    from transformers import AutoFeatureExtractor

    change = {"views": 2, "shift": 0.1, "noise": 0.1, "time_mask": 0.1}
    recipe = write_media_recipe(tiny_wav2vec2, recordings, augmentation={"audio": change})
    outcome = run(load_recipe(recipe), tmp_path / "out", force=True)
    extractor = AutoFeatureExtractor.from_pretrained(tiny_wav2vec2)
    golden = _golden(outcome, "audio")
    assert outcome.metrics["test"]["adapter"]["accuracy"] == 1.0
    for value, raw in zip(golden.inputs, golden.outputs, strict=True):
        samples, rate = soundfile.read(io.BytesIO(value.data), dtype="float32")
        assert rate == 16000
        values = extractor(samples, sampling_rate=rate, return_tensors="np")["input_values"]
        expected = _peft_logits(tiny_wav2vec2, outcome.results.bundle, values, cls=False)
        np.testing.assert_allclose(raw, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": {"image": {"views": 2, "cutmix_alpha": 1.0}}},
        {"augmentation": {"mixup_alpha": 0.2}},
        {"training": {"contrastive_epochs": 2}, "augmentation": {"image": {"views": 2, "flip": 0.5}}},
    ],
    ids=["cutmix", "mixup", "contrast"],
)
def test_an_adapter_trains_on_images_by_cutmix_mixup_and_contrast(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, change: dict[str, Any]
) -> None:
    job = prepare(load_recipe(write_media_recipe(tiny_dinov2, images, **change)))
    with deterministic(0):
        candidate = train_candidate("lora", job.training_rows, job.plan())
    assert len(candidate.epochs) == 2
    changed = [p for n, p in candidate.network.parameters().items() if "lora_B" in n]
    assert all(p.detach().abs().max() > 0 for p in changed)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_digest(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, tmp_path: Path
) -> None:
    recipe = write_media_recipe(tiny_dinov2, images, augmentation={"image": {"views": 2, "crop": 0.8}})
    digests = {run(load_recipe(recipe), tmp_path / name, force=True).digest for name in ("first", "second")}
    assert len(digests) == 1


def test_a_network_that_starts_at_kept_states_answers_as_the_whole_one(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path
) -> None:
    job = prepare(load_recipe(write_media_recipe(tiny_dinov2, images)))
    network = new_network(job.network, "lora", 0, job.encoder.device)
    whole = outputs(network, job.inputs("test"))
    kept = job.inputs("test")
    start_at_states(network, [kept])
    assert network.depth == 1
    assert network.from_layer is not None
    assert kept.states is not None
    np.testing.assert_allclose(outputs(network, kept), whole, atol=1e-5)


def test_a_training_reports_every_row_and_copy_that_passes_the_frozen_layers(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path
) -> None:
    job = prepare(
        load_recipe(write_media_recipe(tiny_dinov2, images, augmentation={"image": {"views": 2, "flip": 0.5}}))
    )
    told: list[tuple[int, int, str]] = []

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        told.append((done, total, note))

    with deterministic(0):
        train_candidate("lora", job.training_rows, job.plan(preparing=report))
    rows = 3 * len(job.rows["train"]) + len(job.rows["validation"])
    assert told[-1] == (rows, rows, "fit: rows through the frozen layers")
    assert [done for done, *_ in told] == sorted({done for done, *_ in told})


def test_all_linear_leaves_out_convolutions_unless_a_recipe_names_them(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path
) -> None:
    linear = prepare(load_recipe(write_media_recipe(tiny_dinov2, images, peft={"layers_to_transform": None})))
    assert linear.network.foundation.depth(linear.network.sites) == 0
    assert len(linear.network.sites) == 12
    named = {"layers_to_transform": None, "target_modules": ["projection", "q_proj"]}
    job = prepare(load_recipe(write_media_recipe(tiny_dinov2, images, peft=named)))
    assert "embeddings.patch_embeddings.projection" in job.network.sites


def test_an_epoch_takes_one_copy_of_each_row() -> None:
    import torch

    order = torch.Generator().manual_seed(0)
    drawn = [draw_views(50, 150, order) for _ in range(3)]
    assert [[copy % 50 for copy in epoch] for epoch in drawn] == [list(range(50))] * 3
    assert {copy // 50 for epoch in drawn for copy in epoch} == {0, 1, 2}
    assert draw_views(50, 50, order) == list(range(50))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model": "default"}, "reads text, and image-classification needs a foundation for image"),
        ({"data": {"text_column": "text"}}, "data.text_column is for SEQ_CLS"),
        ({"training": {"max_length": 32}}, "training.max_length is for"),
        ({"augmentation": {"audio": {"shift": 0.1}}}, "augmentation.audio is for audio-classification"),
        ({"data": {"path": "rows.csv"}}, "path and image_folder name two sources of rows"),
        ({"data": {"image_folder": None}}, "path is missing: the rows to train on"),
        ({"data": {"image_folder": None, "path": "rows.csv"}}, "data.path_column is missing"),
        ({"data": {"test_path": "rows.csv"}}, "test_path is for rows in files"),
    ],
)
def test_a_recipe_that_does_not_fit_images_is_refused(
    write_media_recipe: WriteRecipe, tiny_dinov2: Path, images: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        prepare(load_recipe(write_media_recipe(tiny_dinov2, images, **change)))

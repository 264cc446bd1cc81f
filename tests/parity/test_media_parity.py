"""Every cell of the matrix of images and recordings answers as PEFT does; every other one is refused.

The suite that runs by default has a few cells of some architectures.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from transformers import (
    AudioClassificationPipeline,
    AutoFeatureExtractor,
    AutoImageProcessor,
    ImageClassificationPipeline,
)

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import AdapterWeights, Rejected
from tests.marks import slow_except
from tests.media_foundations import MEDIA
from tests.parity.matrix import RUNNERS, Cell
from tests.parity.media_bench import INPUTS, MediaBench
from tests.parity.media_matrix import (
    MEDIA_KINDS,
    MEDIA_TASKS,
    TARGETS,
    chosen,
    media_cells,
    media_gap,
    media_served,
)
from tests.parity.test_parity import difference
from tests.peft_adapters import PeftAdapter, close

MediaBenches = Callable[[str], MediaBench]
CHOSEN = {cell for name in TARGETS for cell in chosen(name)}
# `make test` has the chosen cells of these, of each kind of layers; `make test-slow` has everything else.
FAST = ("vit", "dinov2", "swin", "convnextv2", "resnet", "efficientnet", "clip", "wav2vec2", "whisper")


def by_speed(cells: list[Cell]) -> list[Any]:
    """Return the cells as parameters, with the mark `slow` on all but the chosen ones of fast architectures."""
    return [
        pytest.param(
            cell,
            id="-".join(cell),
            marks=() if cell in CHOSEN and cell.architecture in FAST else pytest.mark.slow,
        )
        for cell in cells
    ]


every_runner = pytest.mark.parametrize("runner", RUNNERS)
every_architecture = pytest.mark.parametrize("architecture", slow_except(FAST, TARGETS))


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaBenches]:
    threads = torch.get_num_threads()
    # Models as small as these are slower on more.
    torch.set_num_threads(1)
    yield functools.cache(lambda name: MediaBench(name, tmp_path_factory.mktemp(name)))
    torch.set_num_threads(threads)


@every_runner
@pytest.mark.parametrize("cell", by_speed(media_served()))
def test_an_adapter_on_media_answers_as_peft_does(cell: Cell, runner: str, benches: MediaBenches) -> None:
    bench = benches(cell.architecture)
    one = bench.served(cell)
    outputs = bench.run(runner, [(one.adapter, i) for i in range(INPUTS)])
    for output, expected in zip(outputs, one.expected, strict=True):
        assert close(output, expected), difference(output, expected)


@every_runner
@every_architecture
def test_mixed_adapters_on_media_answer_as_peft_does(
    architecture: str, runner: str, benches: MediaBenches
) -> None:
    """The chosen adapters and the bare foundation in one batch, each on every input."""
    bench = benches(architecture)
    rows = list(product([bench.served(None), *map(bench.served, chosen(architecture))], range(INPUTS)))
    outputs = bench.run(runner, [(one.adapter, i) for one, i in rows])
    wrong = [
        (one.cell, i, difference(output, one.expected[i]))
        for (one, i), output in zip(rows, outputs, strict=True)
        if not close(output, one.expected[i])
    ]
    assert not wrong


@every_architecture
def test_every_media_adapter_s_update_shows_in_its_answers(architecture: str, benches: MediaBenches) -> None:
    """Without this, the tests above would pass for updates too small to see."""
    bench = benches(architecture)
    bare = bench.served(None)
    assert np.abs(bare.expected[0] - bare.expected[1][: len(bare.expected[0])]).max() > 1e-2
    for one in (bench.served(cell) for cell in chosen(architecture) if cell.kind != "head"):
        adapter = one.adapter
        without = AdapterWeights({}, adapter.weights.head)
        plain = replace(adapter, digest=f"{adapter.digest} bare", weights=without)
        outputs = bench.run("torch", [(plain, i) for i in range(INPUTS)])
        assert max(np.abs(o - e).max() for o, e in zip(outputs, one.expected, strict=True)) > 1e-3, one.cell


@pytest.mark.parametrize("architecture", ["vit", "swin", "resnet", "clip", "efficientnet"])
def test_an_image_file_is_classified_as_the_pipeline_does(architecture: str, benches: MediaBenches) -> None:
    bench, cell = benches(architecture), Cell(architecture, "lora", "own-head")
    model, _ = bench.oracle.reloaded(cell, bench.saved(cell).folder)
    processor = AutoImageProcessor.from_pretrained(bench.tiny.folder, use_fast=False)
    pipeline = ImageClassificationPipeline(model=model, image_processor=processor, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    wanted = pipeline(Image.fromarray(pixels), top_k=None)
    assert same_scores(bench.answer("onnx", bench.served(cell).adapter, ImageFile(file.getvalue())), wanted)


@pytest.mark.parametrize("architecture", ["wav2vec2", "audio-spectrogram-transformer", "whisper"])
def test_a_recording_is_classified_as_the_pipeline_does(architecture: str, benches: MediaBenches) -> None:
    bench, cell = benches(architecture), Cell(architecture, "lora", "own-head")
    model, _ = bench.oracle.reloaded(cell, bench.saved(cell).folder)
    extractor = AutoFeatureExtractor.from_pretrained(bench.tiny.folder)
    pipeline = AudioClassificationPipeline(model=model, feature_extractor=extractor, device="cpu")
    samples = (0.3 * np.random.default_rng(0).normal(size=12_345)).clip(-1, 1).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, extractor.sampling_rate, format="WAV", subtype="FLOAT")
    wanted = pipeline(samples, top_k=None)
    assert same_scores(bench.answer("onnx", bench.served(cell).adapter, AudioFile(file.getvalue())), wanted)


def same_scores(actual: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Whether two answers name the same labels in one order, with scores within 1e-4."""
    return [one["label"] for one in actual] == [one["label"] for one in wanted] and bool(
        np.allclose([one["score"] for one in actual], [one["score"] for one in wanted], rtol=0, atol=1e-4)
    )


@pytest.mark.parametrize(
    "cell", [c for c in media_cells() if (why := media_gap(c)) and why.check == "sites"], ids="-".join
)
def test_a_media_adapter_that_cannot_be_is_refused_for_its_reason(
    cell: Cell, benches: MediaBenches, tmp_path: Path
) -> None:
    bench, why = benches(cell.architecture), media_gap(cell)
    assert why is not None
    bench.oracle.save(cell, tmp_path / "adapter")
    with pytest.raises(Rejected) as refused:
        bench.opened(cell, PeftAdapter(tmp_path / "adapter", cell.task, 0).zip())
    assert refused.value.check == why.check


@pytest.mark.parametrize("architecture", [n for n in TARGETS if media_gap(Cell(n, "lora", "own-head"))])
def test_a_model_without_a_class_for_classification_has_only_embeddings(
    architecture: str, benches: MediaBenches
) -> None:
    bench = benches(architecture)
    assert bench.tiny.spec.tasks == ("image-feature-extraction",)
    data = bench.saved(Cell(architecture, "lora", "embedding")).zip()
    with pytest.raises(Rejected, match=r"schema: task: 'image-classification' is not served"):
        bench.opened(Cell(architecture, "lora", "own-head"), data)


def test_the_chosen_cells_are_of_every_kind_task_and_architecture() -> None:
    assert TARGETS.keys() == MEDIA.keys()
    assert {(cell.kind, cell.task) for cell in CHOSEN} == set(product(MEDIA_KINDS, MEDIA_TASKS))
    assert {cell.architecture for cell in CHOSEN} == TARGETS.keys()

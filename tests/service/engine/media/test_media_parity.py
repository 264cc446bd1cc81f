"""The runners answer for images and sound as PEFT does, for every architecture and kind of adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.encode.batch import Batch, Encoder
from rootstock.service.engine.encode.sample import SampleArrays
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.media_foundations import MEDIA
from tests.peft_adapters import close
from tests.service.engine.media.peft_media import MediaAdapter, make_natural_foundation, media_adapters

INPUTS = 3
# The samples of a recording: 0.1 s.
SAMPLES = 1600


@dataclass(frozen=True)
class Media:
    """A tiny foundation, its adapters, inputs, and PEFT's answers by adapter and input."""

    folder: Path
    spec: FoundationSpec
    adapters: list[MediaAdapter]
    inputs: np.ndarray
    expected: list[list[np.ndarray]]

    def runner(self, kind: str, exported: Path) -> Encoder:
        runner: Encoder
        if kind == "onnx":
            runner = OnnxRunner(exported, slots=16, threads=1)
        else:
            graphs = 4 if kind == "torch, rounded" else 0
            runner = TorchRunner(self.folder, self.spec, slots=16, threads=1, device="cpu", graphs=graphs)
        for slot, one in enumerate(self.adapters):
            runner.place(slot, runner.stage(one.adapter))
        return runner

    def check(self, runner: Encoder, rows: Sequence[tuple[int, int]]) -> None:
        """Run rows of (adapter, input) in one batch and compare each with PEFT's answer."""
        places = list(dict.fromkeys(i for _, i in rows))
        arrays = SampleArrays({self.spec.inputs[0]: self.inputs[places]}, (17,) * len(places), frozenset())
        batch = Batch(arrays, tuple(slot for slot, _ in rows), tuple(places.index(i) for _, i in rows))
        for (slot, i), output in zip(rows, runner.run(batch), strict=True):
            assert close(output, self.expected[slot][i]), (
                f"{self.adapters[slot].name}, input {i}: {output} {self.expected[slot][i]}"
            )


# Of the other architectures, `make test` would export the graphs for minutes.
QUICK = ("dinov2", "wavlm")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MEDIA],
)
def media(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Media:
    folder = tmp_path_factory.mktemp(request.param)
    spec = describe(make_natural_foundation(request.param, folder))
    shape = [size or SAMPLES for size in spec.input_shape]
    inputs = np.random.default_rng(0).standard_normal((INPUTS, *shape)).astype(np.float32)
    adapters = media_adapters(folder, spec)
    return Media(folder, spec, adapters, inputs, [one.answers(inputs) for one in adapters])


@pytest.fixture(scope="module")
def exported(media: Media) -> Path:
    export(media.folder, media.spec, media.folder / "export")
    return media.folder / "export"


@pytest.fixture(scope="module", params=["onnx", "torch", "torch, rounded"])
def runner(request: pytest.FixtureRequest, media: Media) -> Encoder:
    exported = request.getfixturevalue("exported") if request.param == "onnx" else media.folder
    return media.runner(request.param, exported)


def test_all_kinds_of_adapter_answer_in_one_batch_as_peft_does(media: Media, runner: Encoder) -> None:
    rows = [(slot, (slot + turn) % INPUTS) for turn in range(2) for slot in range(len(media.adapters))]
    for _ in range(3):
        media.check(runner, rows)


def test_each_adapter_alone_answers_as_peft_does(media: Media, runner: Encoder) -> None:
    for slot in range(len(media.adapters)):
        media.check(runner, [(slot, 0)])
        media.check(runner, [(slot, i) for i in range(INPUTS)])


def test_all_adapters_on_one_input_answer_as_peft_does(media: Media, runner: Encoder) -> None:
    media.check(runner, [(slot, 1) for slot in range(len(media.adapters))])


def test_adapters_of_the_last_layer_share_the_layers_below_and_answer_as_peft_does(
    media: Media, runner: Encoder
) -> None:
    deep = [i for i, one in enumerate(media.adapters) if media.spec.depth(one.adapter.weights.sites) > 0]
    media.check(runner, [(slot, i) for i in (1, 0) for slot in deep])


def test_recordings_of_another_length_answer_as_peft_does(media: Media, runner: Encoder) -> None:
    if None not in media.spec.input_shape:
        return
    inputs = np.random.default_rng(1).standard_normal((2, 3 * SAMPLES)).astype(np.float32)
    expected = [one.answers(inputs) for one in media.adapters]
    longer = replace(media, inputs=inputs, expected=expected)
    longer.check(runner, [(slot, slot % 2) for slot in range(len(media.adapters))])


def test_adapters_answer_differently(media: Media) -> None:
    """Without this, the tests above would pass for a runner that mixes adapters up."""
    flat = [np.concatenate(answers) for answers in media.expected]
    for i, one in enumerate(flat):
        others = [other for other in flat[:i] if other.shape == one.shape]
        assert all(np.abs(one - other).max() > 1e-3 for other in others)


def test_an_image_that_comes_again_is_answered_from_the_cache_under_a_short_key(tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    spec = describe(make_natural_foundation("vit", folder))
    export(folder, spec, tmp_path / "export")
    inputs = np.random.default_rng(0).standard_normal((INPUTS, *map(int, spec.input_shape))).astype(np.float32)
    heads = media_adapters(folder, spec)[:3]
    media = Media(folder, spec, heads, inputs, [one.answers(inputs) for one in heads])
    runner = OnnxRunner(tmp_path / "export", slots=3, threads=1, cache_bytes=2**20)
    for slot, one in enumerate(heads):
        runner.place(slot, runner.stage(one.adapter))
    rows = [(slot, i) for slot in range(3) for i in range(2)]
    media.check(runner, rows)
    assert runner._cache is not None
    assert [len(key) for _, key in runner._cache._outputs] == [64, 64]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_run_trunk", None)
        media.check(runner, rows)
    media.check(runner, [(2, 2), (0, 0), (1, 2), (0, 1)])

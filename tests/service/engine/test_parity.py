"""The engine's answers are PEFT's own, alone and in mixed batches, in any order, on any runner."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Adapter, FoundationSpec
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.batch import Encoder
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.runners.torch.runner import TorchRunner
from tests.peft_adapters import (
    ALL,
    TEXTS,
    PeftAdapter,
    close,
    mixed_adapters,
    peft_outputs,
    save_adapter,
    tokenizer_of,
)


@pytest.fixture(scope="module")
def mixed_saved(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return mixed_adapters(foundation.folder, tmp_path_factory.mktemp("mixed"), 32)


@pytest.fixture(scope="module")
def mixed_expected(mixed_saved: list[PeftAdapter], foundation: FoundationFiles) -> list[list[np.ndarray]]:
    return [peft_outputs(foundation.folder, a, TEXTS) for a in mixed_saved]


@pytest.fixture(scope="module")
def opened(mixed_saved: list[PeftAdapter], spec: FoundationSpec) -> list[Adapter]:
    return [open_bundle(a.zip(), Limits(), spec).adapter(spec, 64) for a in mixed_saved]


@pytest.fixture(scope="module", params=["onnx", "torch"])
def runner(
    request: pytest.FixtureRequest, export_folder: Path, foundation: FoundationFiles, spec: FoundationSpec
) -> Iterator[Encoder]:
    if request.param == "onnx":
        yield OnnxRunner(export_folder, slots=64, threads=2)
    else:
        yield TorchRunner(foundation.folder, spec, slots=64)


def place_all(runner: Encoder, adapters: list[Adapter], first: int = 1) -> list[int]:
    slots = list(range(first, first + len(adapters)))
    for slot, adapter in zip(slots, adapters, strict=True):
        runner.place(slot, runner.stage(adapter))
    return slots


def test_each_adapter_alone_answers_as_peft_does(
    runner: Encoder, opened: list[Adapter], mixed_expected: list[list[np.ndarray]], export_folder: Path
) -> None:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    for adapter, outputs in zip(opened[:8], mixed_expected[:8], strict=True):
        slot = place_all(runner, [adapter])[0]
        for text, output in zip(TEXTS, outputs, strict=True):
            encoded = tokenizer.encode(text, adapter.preprocessing, truncate=False)
            assert close(runner.run(pad([encoded], [slot], tokenizer.pad_id))[0], output)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_32_mixed_adapters_in_one_batch_answer_as_peft_does_in_any_order(
    runner: Encoder, opened: list[Adapter], mixed_expected: list[list[np.ndarray]], export_folder: Path, seed: int
) -> None:
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    slots = place_all(runner, opened, first=1 + seed)
    order = [(i, (i + seed) % len(TEXTS)) for i in range(32)]
    random.Random(seed).shuffle(order)
    rows = [tokenizer.encode(TEXTS[t], opened[i].preprocessing, truncate=False) for i, t in order]
    outputs = runner.run(pad(rows, [slots[i] for i, _ in order], tokenizer.pad_id))
    for (i, t), output in zip(order, outputs, strict=True):
        assert close(output, mixed_expected[i][t]), f"adapter {i}, text {t}"


def test_the_foundation_in_a_mixed_batch_embeds_as_sentence_transformers_does(
    runner: Encoder, opened: list[Adapter], spec: FoundationSpec, foundation: FoundationFiles, export_folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(foundation.folder), device="cpu").encode(TEXTS)
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    bare = foundation_adapter(spec)
    runner.place(0, runner.stage(bare))
    slots = place_all(runner, opened[:4])
    rows = [tokenizer.encode(t, bare.preprocessing, truncate=True) for t in TEXTS]
    mixed = runner.run(pad([*rows, *rows], [*slots, 0, 0, 0, 0], tokenizer.pad_id))[4:]
    alone = runner.run(pad(rows, [0, 0, 0, 0], tokenizer.pad_id))
    for a, b, want in zip(mixed, alone, expected, strict=True):
        assert np.abs(a - want).max() < 1e-5
        assert np.abs(b - want).max() < 1e-5


def test_a_feature_extraction_adapter_pools_peft_s_hidden_states(
    runner: Encoder, foundation: FoundationFiles, spec: FoundationSpec, export_folder: Path, tmp_path: Path
) -> None:
    saved = save_adapter(foundation.folder, tmp_path, "FEATURE_EXTRACTION", 5, target_modules=ALL, r=4)
    adapter = open_bundle(saved.zip(), Limits(), spec).adapter(spec, 64)
    tokenizer = Tokenizer(export_folder / "tokenizer.json")
    slot = place_all(runner, [adapter])[0]
    hidden = peft_outputs(foundation.folder, saved, TEXTS)
    for text, states in zip(TEXTS, hidden, strict=True):
        encoded = tokenizer.encode(text, adapter.preprocessing, truncate=False)
        mean = states.mean(axis=0)
        raw = runner.run(pad([encoded], [slot], tokenizer.pad_id))[0]
        assert np.abs(raw - mean / np.linalg.norm(mean)).max() < 1e-5


def test_tokens_are_transformers_own(
    foundation: FoundationFiles, export_folder: Path, opened: list[Adapter]
) -> None:
    theirs, ours = tokenizer_of(foundation.folder), Tokenizer(export_folder / "tokenizer.json")
    for text in [*TEXTS, "", "İstanbul'da ☕ naïve 漢字 \u200b tab\tend"]:
        want = theirs(text)
        got = ours.encode(text, opened[0].preprocessing, truncate=False)
        assert list(got.ids) == want["input_ids"]
        assert list(got.type_ids) == want["token_type_ids"]

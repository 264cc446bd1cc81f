"""The torch decoder gives the logits of PEFT for every family and kind, however passes are put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.catalog import generation_adapter
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter
from tests.service.engine.generate.families import FAMILIES, TinyDecoder, make_adapters, make_decoder

PROMPT = list(range(40, 60))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder(request.param, tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def saved(family: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(family, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def decoder(family: TinyDecoder) -> TorchDecoder:
    return TorchDecoder(family.folder, family.spec, slots=8, cache_tokens=4096)


def _bare(tiny: TinyDecoder) -> Adapter:
    assert tiny.spec.causal_lm is not None
    return generation_adapter(tiny.spec, tiny.spec.causal_lm)


def _expected(tiny: TinyDecoder, saved: PeftAdapter, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits: torch.Tensor = peft_model(tiny.folder, saved)(input_ids=torch.tensor([ids])).logits
    return logits[0].numpy()


def test_a_mixed_batch_of_prompts_and_of_single_tokens_gives_the_logits_of_peft(
    family: TinyDecoder, saved: list[PeftAdapter], decoder: TorchDecoder
) -> None:
    rows = []
    for slot, adapter in enumerate(saved):
        decoder.place(slot, decoder.stage(family.opened(adapter)))
        rows.append(decoder.cache.open())
        assert decoder.cache.extend(rows[-1], len(PROMPT))
    expected = [_expected(family, adapter, PROMPT) for adapter in saved]
    # Chunks of different lengths, then one token at a time, in an order that is not that of the slots.
    order = [3, 0, 5, 1, 4, 2]
    done = [0] * len(saved)
    while min(done) < len(PROMPT):
        segments, ends = [], []
        for slot in order:
            count = min(7 + slot if not done[slot] else 1, len(PROMPT) - done[slot])
            if count:
                segments.append(Segment(rows[slot], slot, PROMPT[done[slot] : done[slot] + count], done[slot]))
                done[slot] += count
                ends.append((slot, done[slot] - 1))
        logits = decoder.run(segments)
        for (slot, end), actual in zip(ends, logits, strict=True):
            np.testing.assert_allclose(actual, expected[slot][end], rtol=1e-3, atol=1e-3)


def test_an_empty_slot_of_the_foundation_gives_the_logits_of_transformers(
    family: TinyDecoder, decoder: TorchDecoder
) -> None:
    decoder.place(0, decoder.stage(_bare(family)))
    row = decoder.cache.open()
    assert decoder.cache.extend(row, len(PROMPT))
    logits = decoder.run([Segment(row, 0, PROMPT, 0)])
    assert int(logits[0].argmax()) == family.greedy(None, PROMPT, 1)[0]


def test_a_kind_that_becomes_lora_gives_the_tokens_of_peft(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    saved = save_adapter(
        tiny.folder, tmp_path / "loha", "CAUSAL_LM", 1, kind="LOHA", r=4, target_modules=["q_proj", "v_proj"]
    )
    data = convert(saved.zip(), locate(str(tiny.folder)), 64, "text-generation").data
    bundle = open_bundle(data, Limits(), tiny.spec, PlainFields(task="text-generation"))
    decoder = TorchDecoder(tiny.folder, tiny.spec, slots=3, cache_tokens=256)
    decoder.place(1, decoder.stage(bundle.adapter(tiny.spec, 64, tiny.weights)))
    row = decoder.cache.open()
    assert decoder.cache.extend(row, len(PROMPT))
    logits = decoder.run([Segment(row, 1, PROMPT, 0)])[0]
    np.testing.assert_allclose(logits, _expected(tiny, saved, PROMPT)[-1], rtol=1e-3, atol=1e-3)

"""Compositions on a decoder give the logits and the tokens of PEFT's "cat", for every family."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.catalog import COMPOSITION, ResolvedReference
from rootstock.service.engine.core.composition import Composition, CompositionPart, compose
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder
from tests.peft_adapters import PeftAdapter, save_adapter
from tests.peft_composition import peft_composition
from tests.service.engine.generate.engines import run_engine
from tests.service.engine.generate.families import FAMILIES, TARGETS, USUAL_TARGETS, TinyDecoder, make_decoder
from tests.service.engine.generate.rewriters import REWRITERS, make_rewriter

PROMPT = list(range(40, 60))
GREEDY = SamplingOptions(temperature=0.0, max_tokens=8)
# The index of each part with its weight.
COMPOSED = [[(0, 0.7), (1, 0.3)], [(1, -0.5), (2, 1.5), (0, 1.0)]]


# Fused projections, transposed weights and layers of several kinds; the others differ less.
USUAL = ("llama", "phi3", "gpt2", "gemma2")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in FAMILIES],
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder(request.param, tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def saved(family: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    attention, other = TARGETS.get(family.spec.model_type, USUAL_TARGETS)
    root = tmp_path_factory.mktemp("parts")
    kinds = [
        {"r": 2, "target_modules": attention},
        {"r": 8, "target_modules": "all-linear"},
        {"r": 4, "target_modules": [*attention, other], "use_rslora": True, "lora_alpha": 16},
    ]
    return [save_adapter(family.folder, root / str(i), "CAUSAL_LM", i, **kind) for i, kind in enumerate(kinds)]


@pytest.fixture(scope="module")
def opened(family: TinyDecoder, saved: list[PeftAdapter]) -> list[Adapter]:
    return [family.opened(one) for one in saved]


def _composition(opened: list[Adapter], parts: list[tuple[int, float]]) -> Composition:
    return Composition(tuple(CompositionPart(opened[i].digest, weight) for i, weight in parts), 0)


def test_compositions_in_one_pass_give_the_logits_of_pefts_cat(
    family: TinyDecoder, saved: list[PeftAdapter], opened: list[Adapter]
) -> None:
    decoder = TorchDecoder(family.folder, family.spec, slots=4, cache_tokens=1024)
    segments = []
    for slot, parts in enumerate(COMPOSED, 1):
        composed = compose(_composition(opened, parts), [opened[i] for i, _ in parts], 64)
        decoder.place(slot, decoder.stage(composed))
        row = decoder.cache.open()
        assert decoder.cache.extend(row, len(PROMPT))
        segments.append(Segment(row, slot, PROMPT, 0))
    for parts, actual in zip(COMPOSED, decoder.run(segments), strict=True):
        model = peft_composition(family.folder, [(saved[i], weight) for i, weight in parts])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([PROMPT])).logits[0, -1].numpy()
        np.testing.assert_allclose(actual, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "t5" else pytest.mark.slow) for name in REWRITERS]
)
def test_compositions_of_encoder_decoder_models_give_the_logits_of_pefts_cat(name: str, tmp_path: Path) -> None:
    tiny = make_rewriter(name, tmp_path / "model")
    saved = [
        save_adapter(tiny.folder, tmp_path / str(i), "SEQ_2_SEQ_LM", i, r=2 + i, target_modules="all-linear")
        for i in range(3)
    ]
    opened = [tiny.opened(one) for one in saved]
    decoder = Seq2SeqDecoder(tiny.folder, tiny.spec, slots=4, cache_tokens=1024)
    text = [0, *range(100, 110)]
    segments = []
    for slot, parts in enumerate(COMPOSED, 1):
        composed = compose(_composition(opened, parts), [opened[i] for i, _ in parts], 64)
        decoder.place(slot, decoder.stage(composed))
        row = decoder.cache.open(len(PROMPT))
        assert decoder.cache.extend(row, len(text))
        segments.append(Segment(row, slot, text, 0, PROMPT))
    for parts, actual in zip(COMPOSED, decoder.run(segments), strict=True):
        model = peft_composition(tiny.folder, [(saved[i], weight) for i, weight in parts])
        ids = {"input_ids": torch.tensor([PROMPT]), "decoder_input_ids": torch.tensor([text])}
        with torch.no_grad():
            logits = model(**ids).logits[0, -1].numpy()
        np.testing.assert_allclose(actual, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def test_greedy_answers_of_compositions_and_of_their_parts_at_once_are_those_of_peft(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    saved = [
        save_adapter(tiny.folder, tmp_path / str(i), "CAUSAL_LM", i, r=4 * (1 + i), target_modules="all-linear")
        for i in range(2)
    ]
    opened = [tiny.opened(one) for one in saved]
    weights = [(0.5, 0.5), (1.5, -0.5), (2.0, 1.0)]
    targets: list[tuple[str, ResolvedReference | None]] = [("a0", None), ("a1", None)]
    for pair in weights:
        whole = _composition(opened, [(0, pair[0]), (1, pair[1])])
        targets.append((COMPOSITION, ResolvedReference(COMPOSITION, None, whole.digest, composition=whole)))

    async def tokens(engine: GenerationEngine, name: str, target: ResolvedReference | None) -> list[int]:
        async with engine.generate(name, PROMPT, GREEDY, target=target) as stream:
            return [piece.choice.token async for piece in stream]

    async def work(engine: GenerationEngine) -> list[list[int]]:
        return await asyncio.gather(*(tokens(engine, *one) for one in targets))

    answers = run_engine(
        tiny.spec,
        TorchDecoder(tiny.folder, tiny.spec, slots=5, cache_tokens=1024),
        PromptTokenizer(tiny.folder),
        {f"a{i}": one for i, one in enumerate(opened)},
        work,
    )
    models = [peft_composition(tiny.folder, list(zip(saved, pair, strict=True))) for pair in weights]
    expected = [tiny.greedy(one, PROMPT, GREEDY.max_tokens or 0) for one in saved]
    for model in models:
        ids = torch.tensor([PROMPT])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=GREEDY.max_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        expected.append(out[0, len(PROMPT) :].tolist())
    assert answers == expected

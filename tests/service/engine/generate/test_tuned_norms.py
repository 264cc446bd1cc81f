"""LN tuning of RMS norms on a decoder gives the logits of PEFT, for generated text and for heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.marks import slow_except
from tests.peft_adapters import peft_model, save_adapter
from tests.service.engine.generate.families import FAMILIES, TARGETS, USUAL_TARGETS, TinyDecoder, make_decoder

PROMPT = list(range(40, 60))
# The last pass has as many tokens as there are heads. gemma3 normalises (heads, tokens), qwen3 (tokens, heads).
FAST = ("llama", "qwen3", "gemma3_text")
_LAYER_NORMS = {"phi": ["input_layernorm", "final_layernorm"], "gpt2": ["ln_1", "ln_2", "ln_f"]}
_HEADS = {"qwen3": ["q_norm", "k_norm"], "gemma3_text": ["q_norm", "k_norm"], "olmo2": ["q_norm", "k_norm"]}
_BESIDE: dict[str, list[str]] = {"gpt_neox": ["input_layernorm", "post_attention_layernorm", "final_layer_norm"]}


def _norms(family: str) -> list[str]:
    if family in _LAYER_NORMS or family in _BESIDE:
        return (_LAYER_NORMS | _BESIDE)[family]
    before = [] if family == "olmo2" else ["input_layernorm"]
    return [*before, "post_attention_layernorm", "model.norm", *_HEADS.get(family, [])]


@pytest.fixture(params=slow_except(FAST, FAMILIES))
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> TinyDecoder:
    return make_decoder(request.param, tmp_path / "model")


def test_a_pass_of_tuned_norms_and_other_adapters_gives_the_logits_of_peft(
    tiny: TinyDecoder, tmp_path: Path
) -> None:
    family = tiny.spec.model_type
    attention = TARGETS.get(family, USUAL_TARGETS)[0]
    options: list[dict[str, Any]] = [
        {"kind": "LN_TUNING", "target_modules": _norms(family)},
        {"target_modules": attention, "modules_to_save": _norms(family)[:1]},
        {"target_modules": attention},
        {"kind": "LN_TUNING", "target_modules": _norms(family)[:1]},
    ]
    saved = [save_adapter(tiny.folder, tmp_path / str(i), "CAUSAL_LM", i, **one) for i, one in enumerate(options)]
    decoder = TorchDecoder(tiny.folder, tiny.spec, slots=8, cache_tokens=1024)
    rows = []
    for slot, adapter in enumerate(saved):
        decoder.place(slot, decoder.stage(tiny.opened(adapter)))
        rows.append(decoder.cache.open())
        assert decoder.cache.extend(rows[-1], len(PROMPT))
    expected = []
    for one in saved:
        with torch.no_grad():
            expected.append(peft_model(tiny.folder, one)(input_ids=torch.tensor([PROMPT])).logits[0].numpy())
    assert max(np.abs(expected[0] - other).max() for other in expected[1:]) > 1e-3
    for first, end in ((0, 18), (18, 19), (19, 20)):
        segments = [Segment(row, slot, PROMPT[first:end], first) for slot, row in enumerate(rows)]
        for actual, wanted in zip(decoder.run(segments), expected, strict=True):
            np.testing.assert_allclose(actual, wanted[end - 1], rtol=1e-4, atol=1e-4)


def test_a_pass_without_tuned_norms_runs_no_hook(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    options: dict[str, Any] = {"kind": "LN_TUNING", "target_modules": ["model.norm"]}
    saved = save_adapter(tiny.folder, tmp_path / "ln", "CAUSAL_LM", 0, **options)
    decoder = TorchDecoder(tiny.folder, tiny.spec, slots=8, cache_tokens=1024)
    decoder.place(1, decoder.stage(tiny.opened(saved)))
    assert decoder._mix.tuned_norms([0]) == frozenset()
    assert decoder._mix.tuned_norms([0, 1]) == {"norm"}
    assert decoder._mix.token_rows([0, 1]) is None

"""Weights in 4 bits keep the levels of Q4_1, and passes compute what transformers does with their values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.catalog import FOUNDATION, generation_adapter
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.engine.runners.decoder.int4 import GROUP, Bf16Linear, Int4Linear, fits_int4, to_int4
from tests.marks import slow_except
from tests.peft_adapters import peft_model
from tests.service.engine.generate.engines import answers_to, run_engine
from tests.service.engine.generate.families import FAMILIES, FAST, TinyDecoder, make_adapters, make_decoder

PROMPT = list(range(40, 60))
# Sizes that torch can pack in 4 bits.
_SIZES = {"hidden_size": 64, "intermediate_size": 96, "n_inner": 96}


def _weight(rows: int = 48, columns: int = 96) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) * 0.05


def _int4_decoder(tiny: TinyDecoder, slots: int = 8) -> TorchDecoder:
    return TorchDecoder(tiny.folder, tiny.spec, slots, cache_tokens=4096, precision="int4")


def test_weights_that_were_in_q4_1_keep_their_levels() -> None:
    q4_1 = GGMLQuantizationType.Q4_1
    weight = torch.from_numpy(dequantize(quantize(_weight().numpy(), q4_1), q4_1).copy())
    groups = weight.unflatten(1, (-1, GROUP))
    least = groups.amin(-1, keepdim=True)
    levels = ((groups - least) / ((groups.amax(-1, keepdim=True) - least) / 15)).round().int()
    assert torch.equal(to_int4(weight).levels, levels.flatten(1))


def test_the_values_of_weights_in_int4_are_within_half_a_step() -> None:
    weight = _weight()
    groups = weight.unflatten(1, (-1, GROUP))
    step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15
    error = (to_int4(weight).weights() - weight).abs().unflatten(1, (-1, GROUP))
    # A bf16 number has 8 significant bits: rounded scales and zero points move a value a little further.
    assert (error <= 0.56 * step).all()


def test_equal_weights_in_a_group_stay_as_they_are() -> None:
    weight = torch.full((16, GROUP), 0.25)
    weight[3] = 0
    equal = to_int4(weight)
    assert torch.equal(equal.weights(), weight)
    assert 0 <= int(equal.levels.min()) <= int(equal.levels.max()) <= 15


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_a_layer_in_int4_multiplies_the_values_of_its_weights(rows: int) -> None:
    weights, bias = to_int4(_weight()), torch.linspace(-1, 1, 48)
    x = torch.randn(1, rows, 96, generator=torch.Generator().manual_seed(4))
    expected = linear(x.bfloat16().float(), weights.weights(), bias)
    torch.testing.assert_close(Int4Linear(weights, bias)(x), expected, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_a_layer_in_bf16_multiplies_its_weights(rows: int) -> None:
    weight, bias = _weight(), torch.linspace(-1, 1, 48)
    x = torch.randn(1, rows, 96, generator=torch.Generator().manual_seed(4))
    expected = linear(x.bfloat16().float(), weight.bfloat16().float(), bias)
    torch.testing.assert_close(Bf16Linear(weight, bias)(x), expected, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("width", [96, 2048])
@pytest.mark.parametrize("kind", ["int4", "bf16"])
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str, width: int) -> None:
    weight = _weight(columns=width)
    layer = Int4Linear(to_int4(weight), None) if kind == "int4" else Bf16Linear(weight, None)
    x = torch.randn(1, 33, width, generator=torch.Generator().manual_seed(5))
    alone = torch.cat([layer(x[:, i : i + 1]) for i in range(33)], 1)
    assert torch.equal(layer(x), alone)


def test_a_processor_without_bf16_products_computes_the_output_layer_too() -> None:
    program = (
        "import torch\n"
        "from rootstock.service.engine.runners.decoder.int4 import Bf16Linear\n"
        "layer = Bf16Linear(torch.eye(48, 96), None)\n"
        "assert torch.equal(layer(torch.ones(1, 1, 96)), torch.ones(1, 1, 48))\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_layers_whose_sizes_torch_cannot_pack_stay_in_fp32() -> None:
    assert fits_int4(torch.nn.Linear(64, 32))
    assert not fits_int4(torch.nn.Linear(48, 32))
    assert not fits_int4(torch.nn.Linear(64, 24))
    assert not fits_int4(torch.nn.Embedding(64, 32))


@pytest.mark.parametrize("family", slow_except(FAST, FAMILIES))
def test_mixed_adapters_on_int4_give_the_logits_of_peft_on_the_same_values(family: str, tmp_path: Path) -> None:
    tiny = make_decoder(family, tmp_path / "model", **_SIZES)
    saved = make_adapters(tiny, tmp_path / "adapters")
    decoder = _int4_decoder(tiny)
    segments = []
    for slot, one in enumerate(saved):
        decoder.place(slot, decoder.stage(tiny.opened(one)))
        row = decoder.cache.open()
        assert decoder.cache.extend(row, len(PROMPT))
        segments.append(Segment(row, slot, PROMPT, 0))
    _give_values(tiny.folder)
    for actual, one in zip(decoder.run(segments), saved, strict=True):
        with torch.no_grad():
            expected = peft_model(tiny.folder, one)(input_ids=torch.tensor([PROMPT])).logits[0, -1].numpy()
        # Each product rounds its input and its output to bf16. Layers of random weights enlarge that.
        assert _distance(actual, expected) <= 0.15


def test_an_answer_on_int4_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model", **_SIZES)
    adapters: dict[str, Adapter] = {
        f"a{i}": tiny.opened(one) for i, one in enumerate(make_adapters(tiny, tmp_path / "adapters"))
    }
    sampling = SamplingOptions(temperature=0.0, max_tokens=12)
    names = [FOUNDATION, *adapters]

    def answers(chosen: list[str]) -> list[list[int]]:
        calls = ((name, PROMPT[: 5 + names.index(name)]) for name in chosen)
        tokenizer = PromptTokenizer(tiny.folder)
        return run_engine(
            tiny.spec, _int4_decoder(tiny, 12), tokenizer, adapters, answers_to(*calls, sampling=sampling)
        )

    assert answers(names) == [answers([name])[0] for name in names]


def test_an_empty_slot_on_int4_gives_the_logits_of_the_values(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model", **_SIZES)
    assert tiny.spec.causal_lm is not None
    decoder = _int4_decoder(tiny)
    decoder.place(0, decoder.stage(generation_adapter(tiny.spec, tiny.spec.causal_lm)))
    row = decoder.cache.open()
    assert decoder.cache.extend(row, len(PROMPT))
    actual = decoder.run([Segment(row, 0, PROMPT, 0)])[0]
    _give_values(tiny.folder)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tiny.folder)(torch.tensor([PROMPT])).logits[0, -1].numpy()
    assert _distance(actual, expected) <= 0.05


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the differences, as a share of that of the expected numbers."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def _give_values(folder: Path) -> None:
    """Save the model again, with the values that int4 gives its linear layers."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    for layer in model.modules():
        if fits_int4(layer) and layer is not model.get_output_embeddings():
            layer.weight.data = to_int4(layer.weight.data).weights()
    model.save_pretrained(folder)

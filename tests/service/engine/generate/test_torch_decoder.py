"""The torch decoder gives the logits of PEFT for every family and kind, however passes are put together."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import generates, locate
from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.catalog import FOUNDATION, generation_adapter
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.engine.runners.decoder.packed_decoder import StagedTensors
from rootstock.service.engine.runners.decoder.self_check import WrongPasses
from tests.marks import slow_except
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter
from tests.service.engine.generate.engines import answers_to, run_engine
from tests.service.engine.generate.families import FAMILIES, FAST, TinyDecoder, make_adapters, make_decoder

PROMPT = list(range(40, 60))
GREEDY = SamplingOptions(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module", params=slow_except(FAST, FAMILIES))
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


def test_greedy_answers_under_more_adapters_than_slots_are_those_of_peft(
    family: TinyDecoder, saved: list[PeftAdapter]
) -> None:
    prompts = [PROMPT[:5], PROMPT]
    calls = [(i, prompt) for prompt in prompts for i in (None, *range(len(saved)))]
    answers = run_engine(
        family.spec,
        TorchDecoder(family.folder, family.spec, slots=4, cache_tokens=4096),
        PromptTokenizer(family.folder),
        {f"a{i}": family.opened(one) for i, one in enumerate(saved)},
        answers_to(*((FOUNDATION if i is None else f"a{i}", p) for i, p in calls), sampling=GREEDY),
        steps=StepLimits(rows=5, prefill_tokens=7, quantum=3),
    )
    for (i, prompt), answer in zip(calls, answers, strict=True):
        assert answer == family.greedy(None if i is None else saved[i], prompt, 12), (i, prompt)


def test_a_model_whose_passes_differ_from_transformers_own_is_refused_when_it_loads(tmp_path: Path) -> None:
    # A config that changes after the foundation was described: every token sees all others now.
    tiny = make_decoder("gemma3_text", tmp_path / "model")
    path = tiny.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_bidirectional_attention": True}))
    with pytest.raises(WrongPasses, match="differ from transformers' own"):
        TorchDecoder(tiny.folder, tiny.spec, slots=3, cache_tokens=256)


def test_a_gpt2_that_names_no_language_model_computes_inputs_in_one_pass(tmp_path: Path) -> None:
    tiny = make_decoder("gpt2", tmp_path / "model")
    assert tiny.spec.own_tasks[0] == "text-generation"
    path = tiny.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["GPT2Model"]}))
    files = locate(str(tiny.folder))
    assert not generates(files)
    assert describe(files).own_tasks == ("feature-extraction",)


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


def test_the_thread_that_loads_computes_on_one_core_and_the_one_that_runs_on_those_given(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    before = torch.get_num_threads()
    counts: list[int] = []

    def serve(decoder: TorchDecoder) -> None:
        row = decoder.cache.open()
        decoder.cache.extend(row, 8)
        decoder.place(0, StagedTensors({}))
        decoder.run([Segment(row, 0, [5, 6, 7], 0)])
        counts.append(torch.get_num_threads())

    try:
        decoder = TorchDecoder(tiny.folder, tiny.spec, 3, 64, threads=2)
        assert torch.get_num_threads() == 1
        thread = threading.Thread(target=serve, args=(decoder,))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert counts == [2]

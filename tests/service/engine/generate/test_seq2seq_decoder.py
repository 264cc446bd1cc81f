"""An encoder–decoder foundation answers under many adapters at once as PEFT's `generate` answers each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, locate
from rootstock.adapters.spec import Adapter, FoundationSpec, Rejected
from rootstock.service.engine.core.catalog import FOUNDATION
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLong
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import Chat, PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder
from tests.marks import slow_except
from tests.peft_adapters import PeftAdapter, peft_model, save_adapter
from tests.service.engine.generate.engines import answers_to, run_engine, tokens_of
from tests.service.engine.generate.rewriters import FAST, REWRITERS, TinyRewriter, make_adapters, make_rewriter

GREEDY = SamplingOptions(temperature=0.0, max_tokens=12)
SOURCES = [list(range(40, 44)), list(range(60, 97)), list(range(300, 390))]


@pytest.fixture(scope="module", params=slow_except(FAST, REWRITERS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter(request.param, tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def saved(tiny: TinyRewriter, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(tiny, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter("bart", tmp_path_factory.mktemp("bart") / "model")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter("t5", tmp_path_factory.mktemp("t5") / "model")


@pytest.fixture(scope="module")
def t5_adapters(t5: TinyRewriter, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    saved = make_adapters(t5, tmp_path_factory.mktemp("adapters"))
    return {f"a{i}": t5.opened(one) for i, one in enumerate(saved)}


def _run(
    tiny: TinyRewriter,
    adapters: dict[str, Adapter],
    work: Any,
    slots: int = 5,
    cache_tokens: int = 4096,
    **options: Any,
) -> Any:
    decoder = Seq2SeqDecoder(tiny.folder, tiny.spec, slots, cache_tokens)
    return run_engine(tiny.spec, decoder, PromptTokenizer(tiny.folder), adapters, work, **options)


def test_greedy_answers_under_more_adapters_than_slots_are_those_of_peft(
    tiny: TinyRewriter, saved: list[PeftAdapter]
) -> None:
    calls = [(i, source) for source in SOURCES for i in (None, *range(len(saved)))]
    answers = _run(
        tiny,
        {f"a{i}": tiny.opened(one) for i, one in enumerate(saved)},
        answers_to(*((FOUNDATION if i is None else f"a{i}", s) for i, s in calls), sampling=GREEDY),
        slots=4,
        steps=StepLimits(rows=5, prefill_tokens=50, quantum=3),
    )
    for (i, source), answer in zip(calls, answers, strict=True):
        assert answer == tiny.greedy(None if i is None else saved[i], source, 12), (i, source)


def test_a_pass_of_sources_and_of_chunks_and_single_tokens_gives_the_logits_of_peft(
    tiny: TinyRewriter, saved: list[PeftAdapter]
) -> None:
    decoder = Seq2SeqDecoder(tiny.folder, tiny.spec, slots=10, cache_tokens=4096)
    text = [0, *range(100, 120)]
    rows, expected = [], []
    for slot, adapter in enumerate(saved):
        decoder.place(slot, decoder.stage(tiny.opened(adapter)))
        rows.append(decoder.cache.open(len(SOURCES[slot % 3])))
        assert decoder.cache.extend(rows[-1], len(text))
        with torch.no_grad():
            ids = {"input_ids": torch.tensor([SOURCES[slot % 3]]), "decoder_input_ids": torch.tensor([text])}
            expected.append(peft_model(tiny.folder, adapter)(**ids).logits[0].numpy())
    done = [0] * len(saved)
    while min(done) < len(text):
        segments, ends = [], []
        for slot in (3, 0, 7, 5, 1, 6, 4, 2):
            count = min(1 + slot if not done[slot] else 2 if slot == 4 else 1, len(text) - done[slot])
            if count:
                source = () if done[slot] else SOURCES[slot % 3]
                tokens = text[done[slot] : done[slot] + count]
                segments.append(Segment(rows[slot], slot, tokens, done[slot], source))
                done[slot] += count
                ends.append((slot, done[slot] - 1))
        for (slot, end), actual in zip(ends, decoder.run(segments), strict=True):
            np.testing.assert_allclose(actual, expected[slot][end], rtol=1e-3, atol=1e-3)


def test_a_full_cache_makes_sequences_wait_or_read_their_source_again_and_changes_no_answer(
    t5: TinyRewriter, t5_adapters: dict[str, Adapter]
) -> None:
    sampling = SamplingOptions(temperature=0.0, max_tokens=70, ignore_eos=True)
    work = answers_to(*((f"a{i % 6}", SOURCES[i % 3]) for i in range(12)), sampling=sampling)
    roomy = _run(t5, t5_adapters, work)
    for capacity in (3 * 128, 90 + 71):
        assert _run(t5, t5_adapters, work, cache_tokens=capacity, steps=StepLimits(quantum=4)) == roomy


def test_a_client_that_leaves_frees_the_room_of_its_source_and_the_others_are_answered(
    t5: TinyRewriter, t5_adapters: dict[str, Adapter]
) -> None:
    sampling = SamplingOptions(temperature=0.0, max_tokens=100, ignore_eos=True)

    async def leave(engine: GenerationEngine) -> None:
        async with engine.generate("a1", SOURCES[2], sampling) as stream:
            async for _ in stream:
                return

    async def work(engine: GenerationEngine) -> list[int]:
        _, answer = await asyncio.gather(leave(engine), tokens_of(engine, ("a2", SOURCES[1]), sampling))
        return answer

    expected = _run(t5, t5_adapters, answers_to(("a2", SOURCES[1]), sampling=sampling))
    assert _run(t5, t5_adapters, work) == expected[0]


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
def test_the_rules_of_a_checkpoint_hold_at_every_limit_of_tokens(bart: TinyRewriter) -> None:
    for most in (1, 2, 9, 40):
        sampling = SamplingOptions(temperature=0.0, max_tokens=most)
        (answer,) = _run(bart, {}, answers_to((FOUNDATION, SOURCES[1]), sampling=sampling))
        assert answer == bart.greedy(None, SOURCES[1], most)
        assert answer[-1] == 2


def test_the_end_that_the_rules_force_comes_although_the_request_excludes_ends(bart: TinyRewriter) -> None:
    sampling = SamplingOptions(temperature=0.0, max_tokens=5, min_tokens=5)
    (answer,) = _run(bart, {}, answers_to((FOUNDATION, SOURCES[0]), sampling=sampling))
    assert len(answer) == 5
    assert answer[-1] == 2
    with pytest.raises(InvalidParameter, match="token 5, with which every answer of this model begins"):
        _run(
            bart,
            {},
            answers_to(
                (FOUNDATION, SOURCES[0]),
                sampling=SamplingOptions(temperature=0.0, min_tokens=1, stop_ids=frozenset({5})),
            ),
        )


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ([], InvalidInput, "empty"),
        ([9999], InvalidInput, "token id 9999"),
        ([50] * 129, TooLong, "129 tokens; the limit is 128"),
        (Chat([{"role": "user", "content": "Hi"}]), InvalidInput, "/v1/completions"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(
    t5: TinyRewriter, prompt: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        _run(t5, {}, answers_to((FOUNDATION, prompt), sampling=GREEDY))


def test_a_source_and_its_answer_together_fit_in_the_cache_or_are_refused(t5: TinyRewriter) -> None:
    sampling = SamplingOptions(temperature=0.0, max_tokens=100, ignore_eos=True)
    (answer,) = _run(t5, {}, answers_to((FOUNDATION, SOURCES[2]), sampling=sampling), cache_tokens=100)
    assert len(answer) == 100 - len(SOURCES[2]) - 1
    with pytest.raises(TooLong, match="the context holds 91"):
        _run(t5, {}, answers_to((FOUNDATION, SOURCES[2]), sampling=sampling), cache_tokens=91)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"encoder_no_repeat_ngram_size": 3}, "encoder_no_repeat_ngram_size is 3, which this server does not"),
        ({"repetition_penalty": 1.2}, "repetition_penalty is 1.2"),
        ({"bad_words_ids": [[3, 4]]}, "only single tokens"),
        ({"decoder_start_token_id": None, "bos_token_id": None}, "add decoder_start_token_id"),
        ({"forced_bos_token_id": 99999}, "forced_bos_token_id is 99999"),
        ({"eos_token_id": None}, "no token that ends an answer"),
    ],
)
def test_a_setting_of_generation_that_is_not_followed_is_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    tiny = make_rewriter("t5", tmp_path / "model")
    for name in ("generation_config.json", "config.json"):
        path = tiny.folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(FoundationError, match=said):
        describe(locate(str(tiny.folder)))


def test_the_spec_of_an_encoder_decoder_model_is_read_back_unchanged(bart: TinyRewriter) -> None:
    assert bart.spec.own_tasks == ("text2text-generation",)
    assert FoundationSpec.from_json(json.loads(json.dumps(bart.spec.to_json()))) == bart.spec


def test_an_adapter_of_the_other_kind_of_generation_is_refused_by_its_task(
    t5: TinyRewriter, tmp_path: Path
) -> None:
    saved = save_adapter(t5.folder, tmp_path / "a", "SEQ_2_SEQ_LM", 1, target_modules=["q"])
    path = saved.folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_type": "CAUSAL_LM"}))
    with pytest.raises(
        Rejected, match=r"'text-generation' is not served on model; choose .*text2text-generation"
    ):
        t5.opened(saved)


def test_a_kind_that_becomes_lora_gives_the_logits_of_peft(t5: TinyRewriter, tmp_path: Path) -> None:
    saved = save_adapter(
        t5.folder, tmp_path / "loha", "SEQ_2_SEQ_LM", 1, kind="LOHA", r=4, target_modules=["q", "v"]
    )
    data = convert(saved.zip(), locate(str(t5.folder)), 64, "text2text-generation").data
    bundle = open_bundle(data, Limits(), t5.spec, PlainFields(task="text2text-generation"))
    adapters = {"loha": bundle.adapter(t5.spec, 64, t5.weights)}
    (answer,) = _run(t5, adapters, answers_to(("loha", SOURCES[1]), sampling=GREEDY))
    assert answer == t5.greedy(saved, SOURCES[1], 12)

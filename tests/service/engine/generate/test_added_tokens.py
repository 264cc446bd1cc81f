"""Adapters that bring tokens to a decoder read and write them as PEFT does on the resized model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rootstock.adapters.spec import AdapterWeights, Preprocessing, Prompting, Rejected
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.service.engine.generate.answer_form import AnswerForm
from rootstock.service.engine.generate.constraint.forced_tokens import ForcedTokens
from rootstock.service.engine.generate.constraint.grammar import regex_grammar, tool_grammar
from rootstock.service.engine.generate.constraint.grammar_compiler import GrammarCompiler
from rootstock.service.engine.generate.constraint.tool_format import Tool
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.marks import slow_except
from tests.peft_adapters import save_adapter
from tests.service.engine.fakes import make_adapter
from tests.service.engine.generate.engines import answers_to, run_engine
from tests.service.engine.generate.families import FAMILIES, TARGETS, USUAL_TARGETS, TinyDecoder, make_decoder
from tests.service.engine.generate.token_adapters import ADDED, KNOWN, BroughtTokens, bring_tokens

# peft warns whenever it saves resized embeddings, and that a tied layer is saved apart from the embedding.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]

TEXT = "Where is my <acme> parcel? It was due on Monday, <zeta> said to <acme>"
GREEDY = SamplingOptions(temperature=0.0, max_tokens=12)
# Families with an embedding that is tied, scaled or both, a scaled output, or an output layer with biases.
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in FAMILIES} | {
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
}
FAST = ("llama", "llama, tied", "gemma2", "phi")


@pytest.fixture(scope="module", params=slow_except(FAST, CASES))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    family, options = CASES[request.param]
    return make_decoder(family, tmp_path_factory.mktemp(family) / "model", **options)


@pytest.fixture(scope="module")
def brought(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[BroughtTokens]:
    """Rows that were trained alone, both layers saved whole, and a head's rows alone."""
    assert tiny.spec.words is not None
    assert tiny.spec.causal_lm is not None
    assert tiny.spec.causal_lm.output is not None
    words, output = tiny.spec.words.name.rpartition(".")[2], tiny.spec.causal_lm.output.name
    first = tiny.spec.causal_lm.vocabulary
    kinds: list[dict[str, Any]] = [
        {"trainable_token_indices": [KNOWN, first, first + 1]},
        {"modules_to_save": [words, output]},
        {"trainable_token_indices": [KNOWN, KNOWN + 3], "added": ()},
    ]
    if not tiny.spec.causal_lm.output.tied and not tiny.spec.causal_lm.output.biased:
        trained = [KNOWN, first, first + 1]
        kinds.append({"trainable_token_indices": {words: trained, output: trained}, "saves": False})
    root = tmp_path_factory.mktemp("adapters")
    return [bring_tokens(tiny, root / str(i), i, **kind) for i, kind in enumerate(kinds)]


def test_a_pass_of_adapters_with_tokens_and_others_gives_the_logits_of_peft(
    tiny: TinyDecoder, brought: list[BroughtTokens], tmp_path: Path
) -> None:
    attention = TARGETS.get(tiny.spec.model_type, USUAL_TARGETS)[0]
    other = save_adapter(tiny.folder, tmp_path / "other", "CAUSAL_LM", 9, target_modules=attention)
    adapters = [tiny.opened(other), *(one.adapter for one in brought)]
    texts = [PromptTokenizer(tiny.folder).encode(TEXT), *(one.ours.encode(TEXT) for one in brought)]
    for one, ids in zip(brought, texts[1:], strict=True):
        assert one.theirs(TEXT)["input_ids"] == ids
    decoder = TorchDecoder(tiny.folder, tiny.spec, slots=8, cache_tokens=4096)
    rows = []
    for slot, (adapter, ids) in enumerate(zip(adapters, texts, strict=True)):
        decoder.place(slot, decoder.stage(adapter))
        rows.append(decoder.cache.open())
        assert decoder.cache.extend(rows[-1], len(ids))
    alone = decoder.run([Segment(rows[0], 0, texts[0][:-2], 0)])
    assert alone.shape[1] == tiny.spec.causal_lm.vocabulary  # type: ignore[union-attr]
    for begin in (0, -2, -1):
        # The prompts without their last two tokens, then one token of each sequence.
        segments = [
            Segment(
                row, slot, ids[begin : begin + 1 or None] if begin else ids[:-2], len(ids) + begin if begin else 0
            )
            for slot, (row, ids) in enumerate(zip(rows, texts, strict=True))
        ]
        logits = decoder.run(segments)
        assert np.isneginf(logits[0, alone.shape[1] :]).all()
        for one, ids, actual in zip(brought, texts[1:], logits[1:], strict=True):
            expected = one.logits(ids[: len(ids) + begin + 1 if begin else -2])[-1]
            np.testing.assert_allclose(actual[: len(expected)], expected, rtol=1e-4, atol=1e-4)
            assert np.isneginf(actual[len(expected) :]).all()


def test_greedy_answers_hold_added_tokens_as_those_of_peft_do(
    tiny: TinyDecoder, brought: list[BroughtTokens]
) -> None:
    prompts = [TEXT, "Ada <acme>", "<zeta> met Babbage"]
    calls = [(f"a{i}", text) for text in prompts for i in range(len(brought))] + [("foundation", TEXT)]
    answers = run_engine(
        tiny.spec,
        TorchDecoder(tiny.folder, tiny.spec, slots=4, cache_tokens=4096),
        PromptTokenizer(tiny.folder),
        {f"a{i}": one.adapter for i, one in enumerate(brought)},
        answers_to(*calls, sampling=GREEDY),
        steps=StepLimits(rows=5, prefill_tokens=7, quantum=3),
    )
    for (name, text), answer in zip(calls, answers, strict=True):
        if name == "foundation":
            assert answer == tiny.greedy(None, PromptTokenizer(tiny.folder).encode(text), 12)
            continue
        one = brought[int(name[1:])]
        assert answer == one.greedy(one.ours.encode(text), 12), (name, text)
    produced = {token for answer in answers for token in answer}
    assert produced & {brought[0].theirs.convert_tokens_to_ids(token) for token in ADDED}


def _refusal(tiny: TinyDecoder, folder: Path, **options: Any) -> str:
    with pytest.raises(Rejected) as refused:
        bring_tokens(tiny, folder, 0, **options)
    assert refused.value.check == "sites"
    return str(refused.value)


def test_an_adapter_whose_added_tokens_the_output_layer_does_not_know_is_refused(tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    assert tiny.spec.causal_lm is not None
    first = tiny.spec.causal_lm.vocabulary
    said = _refusal(tiny, tmp_path / "adapter", trainable_token_indices=[first, first + 1], saves=False)
    assert "lm_head" in said
    assert "no answer could hold it" in said
    assert "save_embedding_layers=True" in said


def test_an_answer_ends_at_the_end_that_an_adapter_adds_and_its_text_is_read_with_its_tokenizer(
    tmp_path: Path,
) -> None:
    tiny = make_decoder("llama", tmp_path / "model", tie_word_embeddings=True)
    assert tiny.spec.causal_lm is not None
    first = tiny.spec.causal_lm.vocabulary
    one = bring_tokens(tiny, tmp_path / "adapter", 0, trainable_token_indices=[KNOWN, first, first + 1])
    prompts = [TEXT, "Ada <acme>", "<zeta> met Babbage", "a", "London", "<acme><zeta>"]
    free = [one.greedy(one.ours.encode(text), 12) for text in prompts]
    produced = [token for answer in free for token in answer[1:] if token >= first]
    assert produced
    end = produced[0]
    one.theirs.add_special_tokens({"eos_token": one.theirs.convert_ids_to_tokens(end)})
    one.theirs.save_pretrained(one.saved.folder)
    adapter = tiny.opened(one.saved)
    assert adapter.prompting.end_token == one.theirs.convert_ids_to_tokens(end)

    async def work(engine: Any) -> list[tuple[list[int], str]]:
        said = []
        for text in prompts:
            async with engine.generate("a", text, GREEDY) as stream:
                pieces = [piece async for piece in stream]
            said.append(([piece.choice.token for piece in pieces], "".join(piece.text for piece in pieces)))
        return said

    decoder = TorchDecoder(tiny.folder, tiny.spec, slots=4, cache_tokens=4096)
    answers = run_engine(tiny.spec, decoder, PromptTokenizer(tiny.folder), {"a": adapter}, work)
    for text, (tokens, answer) in zip(prompts, answers, strict=True):
        ids = one.ours.encode(text)
        assert tokens == one.greedy(ids, 12, end)
        assert answer == one.theirs.decode(tokens, skip_special_tokens=True)
    assert any(tokens[-1] == end for tokens, _ in answers)


@pytest.mark.parametrize("beyond", [0, 2], ids=["in the padded vocabulary", "beyond the vocabulary"])
def test_under_a_grammar_an_answer_ends_at_the_adapter_s_end_where_the_foundation_s_may_stand(
    tmp_path: Path, beyond: int
) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    language = tiny.spec.causal_lm
    assert language is not None
    tokenizer = PromptTokenizer(tiny.folder)
    end = language.vocabulary - 1 + beyond
    weights = AdapterWeights({}, {}, outputs=cast(Any, SimpleNamespace(vocabulary=end + 1)))
    adapter = replace(
        make_adapter("sha256:0", "text-generation"),
        preprocessing=Preprocessing(64, tokens=(AddedToken(end, "<end>"),)),
        prompting=Prompting(end_token="<end>"),
        weights=weights,
    )
    form = AnswerForm(tiny.spec, language, 64)
    compiler = GrammarCompiler(tokenizer.to_json, language.vocabulary, language.stop_ids)
    logits = np.zeros(end + 1, np.float32)
    logits[end] = 9
    ((free,), (bound,)) = (
        asyncio.run(compiler.compile(grammar, 1))
        for grammar in (tool_grammar([Tool("f", "", {}, "p")], "p", False, True), regex_grammar("[ab]{3}", "p"))
    )
    for constraint, length in ((free, 0), (bound, 3)):
        sampler, said = form.sampler(GREEDY, [1], adapter, constraint), ""
        for _ in range(length):
            token = sampler.choose(logits).token
            sampler.accept(token)
            said += tokenizer.decode([token])
            if sampler.finish_reason(token):
                break
        assert re.fullmatch(f"[ab]{{{length}}}", said)
        if constraint is free:
            assert sampler.choose(logits).token == end
            sampler.accept(end)
        assert sampler.finish_reason(end) == "stop"
        assert constraint.ended
    sampler = form.sampler(GREEDY, [1], adapter, ForcedTokens([end], end + 1))
    assert sampler.choose(logits).token == end

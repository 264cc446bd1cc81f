"""The generation engine: many sequences under many adapters at once, each answered as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from rootstock.adapters.spec import Adapter, Array
from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.catalog import FOUNDATION
from rootstock.service.engine.core.errors import (
    EngineError,
    InvalidInput,
    InvalidParameter,
    RunnerFault,
    TooLarge,
    TooLong,
)
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.generate.engine import GenerationEngine, GenerationLimits
from rootstock.service.engine.generate.prompt import Chat, Prompt, PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.generate.stream import TextPiece
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.engines import run_engine
from tests.service.engine.generate.families import TinyDecoder, make_adapters, make_decoder

GREEDY = SamplingOptions(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [list(range(40 + 3 * i, 45 + 7 * i)) for i in range(6)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def saved(llama: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> list[PeftAdapter]:
    return make_adapters(llama, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def adapters(llama: TinyDecoder, saved: list[PeftAdapter]) -> dict[str, Adapter]:
    return {f"a{i}": llama.opened(one) for i, one in enumerate(saved)}


def _run(
    llama: TinyDecoder,
    adapters: Mapping[str, Adapter],
    work: Callable[[GenerationEngine], Awaitable[Any]],
    slots: int = 5,
    cache_tokens: int = 4096,
    wrap: Callable[[TorchDecoder], Any] = lambda decoder: decoder,
    **options: Any,
) -> Any:
    decoder = wrap(TorchDecoder(llama.folder, llama.spec, slots, cache_tokens))
    return run_engine(llama.spec, decoder, PromptTokenizer(llama.folder), adapters, work, **options)


async def _pieces(
    engine: GenerationEngine, reference: str, prompt: Prompt, sampling: SamplingOptions = GREEDY, **options: Any
) -> list[TextPiece]:
    async with engine.generate(reference, prompt, sampling, **options) as stream:
        return [piece async for piece in stream]


def _tokens(pieces: Sequence[TextPiece], index: int = 0) -> list[int]:
    return [piece.choice.token for piece in pieces if piece.index == index]


@pytest.mark.parametrize(
    "steps",
    [StepLimits(), StepLimits(rows=3, prefill_tokens=5, quantum=2)],
    ids=["wide", "narrow"],
)
def test_greedy_answers_under_more_adapters_than_slots_are_those_of_peft(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter], steps: StepLimits
) -> None:
    calls = [(i, prompt) for prompt in PROMPTS for i in (None, *range(len(saved)))]

    async def work(engine: GenerationEngine) -> list[list[TextPiece]]:
        return await asyncio.gather(
            *(_pieces(engine, FOUNDATION if i is None else f"a{i}", prompt) for i, prompt in calls)
        )

    answers = _run(llama, adapters, work, slots=4, steps=steps)
    for (i, prompt), pieces in zip(calls, answers, strict=True):
        expected = llama.greedy(None if i is None else saved[i], prompt, 12)
        ended = expected.index(2) + 1 if 2 in expected else len(expected)
        assert _tokens(pieces)[:ended] == expected[:ended], (i, prompt)
        assert pieces[-1].finish == "length"


def test_prompts_that_begin_alike_are_answered_as_peft_answers_each_whatever_was_computed_before(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    common = list(range(100, 140))
    prompts = [[*common, *tail] for tail in ([7], [7, 8, 9], [8], list(range(30)), [7])]
    calls = [(i, prompt) for prompt in prompts for i in (None, 0, 1, 2)]

    async def work(engine: GenerationEngine) -> list[tuple[list[TextPiece], int]]:
        async def ask(i: int | None, prompt: Sequence[int]) -> tuple[list[TextPiece], int]:
            reference = FOUNDATION if i is None else f"a{i}"
            async with engine.generate(reference, prompt, GREEDY) as stream:
                return [piece async for piece in stream], stream.reused_tokens

        together = await asyncio.gather(*(ask(i, prompt) for i, prompt in calls))
        return [*together, *[await ask(i, prompt) for i, prompt in calls]]

    answers = _run(llama, adapters, work, slots=4)
    for (i, prompt), (pieces, _) in zip(calls * 2, answers, strict=True):
        assert _tokens(pieces) == llama.greedy(None if i is None else saved[i], prompt, 12)[:12], (i, prompt)
    assert all(reused >= len(prompt) - 1 for (_, prompt), (_, reused) in zip(calls, answers[20:], strict=True))


def test_a_full_cache_makes_sequences_wait_or_start_again_and_changes_no_answer(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    sampling = SamplingOptions(temperature=0.0, max_tokens=60, ignore_eos=True)

    async def work(engine: GenerationEngine) -> list[list[TextPiece]]:
        return await asyncio.gather(*(_pieces(engine, f"a{i % 6}", PROMPTS[i % 6], sampling) for i in range(12)))

    roomy = _run(llama, adapters, work)
    narrow = _run(llama, adapters, work, cache_tokens=3 * 64, steps=StepLimits(quantum=4))
    assert [_tokens(one) for one in narrow] == [_tokens(one) for one in roomy]


def test_a_sampled_answer_with_a_seed_does_not_depend_on_what_else_is_in_the_batch(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    sampling = SamplingOptions(temperature=1.0, top_p=0.9, seed=7, max_tokens=20, ignore_eos=True)

    async def alone(engine: GenerationEngine) -> list[TextPiece]:
        return await _pieces(engine, "a1", PROMPTS[2], sampling)

    async def among_others(engine: GenerationEngine) -> list[TextPiece]:
        others = [_pieces(engine, f"a{i % 6}", PROMPTS[i % 6], SamplingOptions(max_tokens=30)) for i in range(15)]
        return (await asyncio.gather(_pieces(engine, "a1", PROMPTS[2], sampling), *others))[0]

    assert _tokens(_run(llama, adapters, among_others)) == _tokens(_run(llama, adapters, alone))


def test_several_answers_to_one_prompt_differ_and_the_first_is_the_answer_of_one(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    sampling = SamplingOptions(seed=3, max_tokens=10, ignore_eos=True)

    async def work(engine: GenerationEngine) -> tuple[list[TextPiece], list[TextPiece]]:
        several = await _pieces(engine, "a0", PROMPTS[1], sampling, answers=3)
        return several, await _pieces(engine, "a0", PROMPTS[1], sampling)

    several, single = _run(llama, adapters, work)
    answers = [_tokens(several, i) for i in range(3)]
    assert answers[0] == _tokens(single)
    assert len({tuple(answer) for answer in answers}) == 3


def test_the_text_of_the_pieces_is_the_decoded_answer_and_ends_before_a_stop_string(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine) -> tuple[list[TextPiece], list[TextPiece]]:
        pieces = await _pieces(
            engine, "a1", "Where did they meet?", SamplingOptions(temperature=0, max_tokens=30)
        )
        text = "".join(piece.text for piece in pieces)
        stop = SamplingOptions(temperature=0, max_tokens=30, stop=(text[5:8],))
        return pieces, await _pieces(engine, "a1", "Where did they meet?", stop)

    pieces, stopped = _run(llama, adapters, work)
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(llama.folder / "tokenizer.json")).decode(_tokens(pieces))
    text = "".join(piece.text for piece in pieces)
    assert whole.startswith(text.rstrip("\ufffd"))
    short = "".join(piece.text for piece in stopped)
    assert short == text[: text.index(text[5:8])]
    assert stopped[-1].finish == "stop"


def test_a_chat_is_rendered_as_transformers_renders_it(llama: TinyDecoder) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my parcel?"}]
    expected = AutoTokenizer.from_pretrained(llama.folder).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert PromptTokenizer(llama.folder).encode_chat(Chat(messages)) == expected


def test_a_client_that_leaves_frees_its_room_and_the_others_are_answered(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    long = SamplingOptions(temperature=0, max_tokens=100, ignore_eos=True)

    async def leave(engine: GenerationEngine) -> None:
        async with engine.generate("a2", PROMPTS[0], long) as stream:
            async for _ in stream:
                return

    async def work(engine: GenerationEngine) -> list[TextPiece]:
        answer, *_ = await asyncio.gather(_pieces(engine, "a1", PROMPTS[1]), *(leave(engine) for _ in range(8)))
        return answer

    assert len(_run(llama, adapters, work)) == 12


class _Faulty:
    """A decoder that fails on every pass with a prompt of the unlucky length."""

    def __init__(self, decoder: TorchDecoder) -> None:
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def run(self, segments: Sequence[Segment]) -> Array:
        if any(len(segment.tokens) == 13 for segment in segments):
            raise ValueError("unlucky")
        return self._decoder.run(segments)


def test_a_fault_of_the_decoder_fails_its_pass_and_the_next_one_is_served(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine) -> tuple[Any, list[TextPiece]]:
        fault = await asyncio.gather(_pieces(engine, "a1", list(range(50, 63))), return_exceptions=True)
        return fault[0], await _pieces(engine, "a1", PROMPTS[0])

    fault, pieces = _run(llama, adapters, work, wrap=_Faulty)
    assert isinstance(fault, RunnerFault)
    assert "unlucky" in str(fault.__cause__)
    assert len(pieces) == 12


@pytest.mark.parametrize(
    ("prompt", "sampling", "error", "message"),
    [
        ([], GREEDY, InvalidInput, "the prompt is empty"),
        (list(range(100)) * 2, GREEDY, TooLong, "has 200 tokens; the context holds 128"),
        ([9999], GREEDY, InvalidInput, "token id 9999; the vocabulary has ids from 0 to"),
        ([5], SamplingOptions(temperature=9), InvalidParameter, "temperature is 9"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_before_anything_is_computed(
    llama: TinyDecoder,
    adapters: dict[str, Adapter],
    prompt: list[int],
    sampling: SamplingOptions,
    error: type[EngineError],
    message: str,
) -> None:
    async def work(engine: GenerationEngine) -> None:
        await _pieces(engine, "a0", prompt, sampling)

    with pytest.raises(error, match=message):
        _run(llama, adapters, work)


def test_a_deadline_that_passes_ends_the_answer_with_an_error(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine) -> None:
        await _pieces(
            engine,
            "a0",
            PROMPTS[0],
            SamplingOptions(max_tokens=100, ignore_eos=True),
            options=RequestOptions(timeout_s=1e-9),
        )

    with pytest.raises(EngineError, match="not complete"):
        _run(llama, adapters, work, limits=GenerationLimits())


def test_the_replay_of_an_adapter_gives_greedy_tokens_and_their_log_probabilities(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    text = "Where is my parcel?"

    async def work(engine: GenerationEngine) -> list[Array]:
        return await engine.replay(adapters["a3"], [text, text], [6, 3])

    long, short = _run(llama, {}, work)
    ids = PromptTokenizer(llama.folder).encode(text)
    assert list(map(int, long[:, 0])) == llama.greedy(saved[3], ids, 6)
    assert long.shape == (6, 2)
    np.testing.assert_allclose(short, long[:3], rtol=1e-4, atol=1e-4)
    assert (long[:, 1] <= 0).all()


def test_many_prompts_are_replayed_at_once_and_each_as_alone(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    texts = ["Where is my parcel?"[i:] for i in range(9)]

    async def work(engine: GenerationEngine) -> list[Array]:
        return await engine.replay(adapters["a3"], texts, [5] * len(texts))

    encode = PromptTokenizer(llama.folder).encode
    for text, output in zip(texts, _run(llama, {}, work), strict=True):
        assert list(map(int, output[:, 0])) == llama.greedy(saved[3], encode(text), 5), text


def test_forced_tokens_have_their_log_probabilities_under_the_adapter(
    llama: TinyDecoder, saved: list[PeftAdapter], adapters: dict[str, Adapter]
) -> None:
    forced = [[7, 31, 7], [5]]

    async def work(engine: GenerationEngine) -> list[Array]:
        with pytest.raises(InvalidInput, match="token 999999 is not in the vocabulary"):
            await engine.replay(adapters["a3"], ["one"], [1], [[999_999]])
        return await engine.replay(adapters["a3"], ["one", "two"], [3, 1], forced)

    model, encode = peft_model(llama.folder, saved[3]), PromptTokenizer(llama.folder).encode
    for text, tokens, output in zip(["one", "two"], forced, _run(llama, {}, work), strict=True):
        ids = encode(text)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
        scores = logits.log_softmax(-1)[range(len(tokens)), tokens]
        assert output[:, 0].tolist() == tokens
        np.testing.assert_allclose(output[:, 1], scores.numpy(), rtol=1e-3, atol=1e-3)


def test_a_prompt_that_cannot_be_replayed_ends_the_replay_of_the_others(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine) -> list[Array]:
        with pytest.raises(TooLong):
            await engine.replay(adapters["a3"], ["one", "two" * 200, "three"], [100, 5, 100])
        assert engine.admission.waiting() == (0, 0)
        return await engine.replay(adapters["a2"], ["one"], [5])

    (output,) = _run(llama, {}, work)
    assert output.shape == (5, 2)


def test_a_call_that_never_fits_in_the_queue_leaves_room_for_the_next_one(
    llama: TinyDecoder, adapters: dict[str, Adapter]
) -> None:
    async def work(engine: GenerationEngine) -> list[TextPiece]:
        with pytest.raises(TooLarge):
            await _pieces(engine, "a0", list(range(60)), GREEDY, answers=3)
        assert engine.admission.waiting() == (0, 0)
        return await _pieces(engine, "a0", PROMPTS[0])

    assert len(_run(llama, adapters, work, capacity=Capacity(8, 100))) == 12

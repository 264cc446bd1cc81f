"""The sampler draws from the distribution that the processors of transformers leave, in the library's order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, SequenceBiasLogitsProcessor

from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.token_sampler import TokenSampler

VOCABULARY = 200
EOS = [3, 7]

PENALTIES = st.one_of(st.just(1.0), st.floats(0.5, 2))
WARPERS = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.05, 2),
        "top_k": st.one_of(st.just(0), st.integers(1, VOCABULARY + 5)),
        # Closer to 1, the rounding of float64 decides.
        "top_p": st.one_of(st.just(1.0), st.floats(0.01, 1 - 1e-9)),
        "min_p": st.one_of(st.just(0.0), st.floats(0, 1)),
    }
)
LOGITS = st.builds(
    lambda seed, scale: (scale * np.random.default_rng(seed).standard_normal(VOCABULARY)).astype(np.float32),
    st.integers(0, 2**32),
    st.floats(0.1, 8),
)
IDS = st.lists(st.integers(0, VOCABULARY - 1), max_size=30)
PROMPTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


class Library(GenerationMixin):
    """What transformers asks of a model when it chooses processors and their order."""

    config = SimpleNamespace(is_encoder_decoder=False)

    def processors(self, prompt: int, options: SamplingOptions) -> LogitsProcessorList:
        config = GenerationConfig(
            do_sample=options.temperature > 0,
            temperature=float(options.temperature) or None,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            min_new_tokens=options.min_tokens,
        )
        config._eos_token_tensor = torch.tensor(EOS)
        return self._get_logits_processor(config, input_ids_seq_length=prompt)


def expected(options: SamplingOptions, prompt: list[int], output: list[int], logits: np.ndarray) -> np.ndarray:
    """The probability of each token, by transformers. Its warpers run in float64: rounding then moves no edge."""
    ids = torch.tensor([prompt + output], dtype=torch.long)
    scores = torch.from_numpy(logits.copy())[None]
    for processor in Library().processors(len(prompt), options):
        warps = type(processor).__name__.endswith("Warper")
        scores = processor(ids, scores.double() if warps else scores)
    return scores.double().softmax(-1)[0].numpy()


def drawn_from(sampler: TokenSampler, logits: np.ndarray) -> np.ndarray:
    ids, probabilities = sampler.distribution(logits)
    assert (np.diff(ids) > 0).all()
    dense = np.zeros(len(logits))
    dense[ids] = probabilities
    return dense


def sampler_after(
    options: SamplingOptions, prompt: list[int], output: list[int], vocabulary: int = VOCABULARY
) -> TokenSampler:
    options.check()
    options.check_ids(vocabulary)
    sampler = TokenSampler(options, prompt, EOS, vocabulary)
    for token in output:
        sampler.accept(token)
    return sampler


def agrees(ours: np.ndarray, theirs: np.ndarray) -> None:
    # Smaller probabilities have fewer digits in float64.
    assert np.flatnonzero(ours > 1e-300).tolist() == np.flatnonzero(theirs > 1e-300).tolist()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-300)


@settings(deadline=None)
@given(LOGITS, WARPERS)
def test_the_distribution_is_that_of_transformers_warpers(logits: np.ndarray, warpers: dict[str, Any]) -> None:
    options = SamplingOptions(**warpers)
    agrees(drawn_from(sampler_after(options, [], []), logits), expected(options, [], [], logits))


# The nucleus has 44, 4414 and 18,775 tokens.
@pytest.mark.parametrize("scale", [6.0, 2.5, 0.1])
@pytest.mark.parametrize("top_k", [0, 9000])
def test_top_p_of_a_large_vocabulary_is_that_of_transformers(scale: float, top_k: int) -> None:
    logits = (scale * np.random.default_rng(4).standard_normal(20_000)).astype(np.float32)
    options = SamplingOptions(top_p=0.95, top_k=top_k, min_p=1e-4)
    agrees(drawn_from(sampler_after(options, [], [], 20_000), logits), expected(options, [], [], logits))


@settings(deadline=None)
@given(LOGITS, WARPERS, PROMPTS, IDS, PENALTIES, st.integers(0, 30))
def test_the_distribution_of_a_later_token_is_that_of_transformers(
    logits: np.ndarray, warpers: dict[str, Any], prompt: list[int], output: list[int], penalty: float, least: int
) -> None:
    options = SamplingOptions(**warpers, repetition_penalty=penalty, min_tokens=least)
    ours = drawn_from(sampler_after(options, prompt, output), logits)
    agrees(ours, expected(options, prompt, output, logits))


@settings(deadline=None)
@given(LOGITS, PROMPTS, IDS, PENALTIES, st.integers(0, 30))
def test_the_greedy_token_is_that_of_transformers(
    logits: np.ndarray, prompt: list[int], output: list[int], penalty: float, least: int
) -> None:
    options = SamplingOptions(temperature=0, repetition_penalty=penalty, min_tokens=least)
    choice = sampler_after(options, prompt, output).choose(logits)
    assert choice.token == expected(options, prompt, output, logits).argmax()


@settings(deadline=None)
@given(LOGITS, st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), min_size=1))
def test_the_logit_bias_is_that_of_transformers(logits: np.ndarray, bias: dict[int, float]) -> None:
    theirs = SequenceBiasLogitsProcessor({(token,): float(value) for token, value in bias.items()})
    scores = theirs(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits.copy())[None])
    sampler = sampler_after(SamplingOptions(logit_bias=bias), [], [])
    np.testing.assert_allclose(
        drawn_from(sampler, logits), scores[0].double().softmax(-1).numpy(), rtol=1e-4, atol=1e-12
    )


@pytest.mark.parametrize("alternatives", [0, 1, 5, 20])
def test_log_probabilities_are_those_of_the_models_own_logits(alternatives: int) -> None:
    logits = (3 * np.random.default_rng(0).standard_normal(VOCABULARY)).astype(np.float32)
    options = SamplingOptions(
        logprobs=alternatives, temperature=0.7, top_k=5, logit_bias={3: 50}, repetition_penalty=1.5, seed=1
    )
    choice = sampler_after(options, [1, 2, 3], [4]).choose(logits)
    theirs = torch.from_numpy(logits).double().log_softmax(-1)
    values, ids = theirs.topk(alternatives) if alternatives else (torch.zeros(0), torch.zeros(0))
    assert choice.token == 3
    assert choice.logprob == pytest.approx(theirs[3].item(), abs=1e-5)
    assert [token for token, _ in choice.top] == ids.tolist()
    assert [value for _, value in choice.top] == pytest.approx(values.tolist(), abs=1e-5)

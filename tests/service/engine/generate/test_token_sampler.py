"""A sequence draws its tokens by its own options and seed, whatever the other sequences of the step do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rootstock.service.engine.core.errors import RunnerFault
from rootstock.service.engine.generate.categorical import draw
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.token_sampler import TokenChoice, TokenSampler, choose_all

VOCABULARY = 300
EOS = 2

EVERY_KIND: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "logprobs": 3},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"temperature": 0, "logit_bias": {5: 100.0}},
    {"temperature": 0, "min_tokens": 4},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 1.5, "seed": 2, "logprobs": 0},
    {"temperature": 0.7, "seed": 3, "top_p": 0.8},
    {"temperature": 0.7, "seed": 4, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 0.7, "seed": 5, "presence_penalty": 1.0, "frequency_penalty": 0.5},
]


def normal(seed: int, rows: int = 1, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((rows, VOCABULARY))).astype(np.float32)


class Allowing:
    """A constraint that allows the same tokens at each step, and ends after some tokens."""

    def __init__(self, mask: np.ndarray, end: int = 10**6) -> None:
        self._mask = mask
        self._left = end

    @property
    def ended(self) -> bool:
        return self._left <= 0

    def allowed(self) -> np.ndarray:
        return self._mask.copy()

    def accept(self, token: int) -> None:
        assert self._mask[token]
        self._left -= 1


def sampler_of(
    prompt: tuple[int, ...] = (1, 5, 9), constraint: Allowing | None = None, **values: Any
) -> TokenSampler:
    options = SamplingOptions(**values)
    options.check()
    options.check_ids(VOCABULARY)
    return TokenSampler(options, prompt, [EOS], VOCABULARY, constraint)


def generate(sampler: TokenSampler, steps: np.ndarray) -> list[int]:
    tokens = []
    for logits in steps:
        tokens.append(sampler.choose(logits).token)
        sampler.accept(tokens[-1])
    return tokens


@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
def test_the_same_logits_options_and_seed_give_the_same_tokens(values: dict[str, Any]) -> None:
    steps = normal(0, 50)
    first = generate(sampler_of(**values), steps)
    assert generate(sampler_of(**values), steps) == first


def test_other_seeds_and_no_seed_give_other_tokens() -> None:
    steps = normal(0, 50)
    seeds: list[int | None] = [0, 1, -1, 2**63 - 1, -(2**63), None, None]
    results = [tuple(generate(sampler_of(seed=seed), steps)) for seed in seeds]
    assert len(set(results)) == len(results)


@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
def test_a_choice_changes_nothing_until_a_token_is_accepted(values: dict[str, Any]) -> None:
    sampler, logits = sampler_of(**values), normal(0)[0]
    before = logits.copy()
    assert sampler.choose(logits) == sampler.choose(logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    "values",
    [{}, {"temperature": 0.6}, {"top_k": 8}, {"top_p": 0.7}, {"top_k": 15, "top_p": 0.9, "min_p": 0.05}],
    ids=str,
)
def test_tokens_come_as_often_as_their_probabilities_say(values: dict[str, Any]) -> None:
    logits = normal(3, scale=1.0)[0, :30]
    sampler = TokenSampler(SamplingOptions(seed=11, **values), [], [], len(logits))
    ids, probabilities = sampler.distribution(logits)
    draws = 5000
    counts = Counter(generate(sampler, np.broadcast_to(logits, (draws, len(logits)))))
    assert set(counts) <= set(ids.tolist())
    test = stats.chisquare([counts[int(i)] for i in ids], draws * probabilities)
    assert test.pvalue > 0.001


def test_tokens_of_a_large_vocabulary_come_as_often_as_their_probabilities_say() -> None:
    logits = np.random.default_rng(3).standard_normal(5000).astype(np.float32)
    sampler = TokenSampler(SamplingOptions(seed=12), [], [], len(logits))
    draws = 5000
    tokens = generate(sampler, np.broadcast_to(logits, (draws, len(logits))))
    probabilities = sampler.distribution(logits)[1].reshape(100, 50).sum(axis=1)
    counts = np.bincount(np.array(tokens) // 50, minlength=100)
    assert stats.chisquare(counts, draws * probabilities).pvalue > 0.001


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 1500), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_where_the_cumulative_sum_reaches_the_number(seed: int, size: int, uniform: float) -> None:
    weights = np.random.default_rng(seed).exponential(size=size) + 1e-9
    place = draw(weights, uniform)
    sums = np.cumsum(weights) / weights.sum()
    assert (0 if place == 0 else sums[place - 1]) - 1e-12 <= uniform <= sums[place] + 1e-12


def test_a_tiny_change_of_the_logits_rarely_changes_the_tokens() -> None:
    steps = normal(5, 3000)
    noise = 1e-6 * np.random.default_rng(6).standard_normal(steps.shape)
    values = {"seed": 1, "temperature": 0.8, "top_p": 0.95}
    ours = generate(sampler_of(**values), steps)
    theirs = generate(sampler_of(**values), (steps + noise).astype(np.float32))
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 3


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_greedy_takes_the_largest_logit_and_of_equals_the_lowest_id_like_torch(seed: int, values: int) -> None:
    logits = np.random.default_rng(seed).integers(0, values, (4, VOCABULARY)).astype(np.float32)
    choices = choose_all([sampler_of(temperature=0) for _ in logits], logits)
    assert [choice.token for choice in choices] == torch.from_numpy(logits).argmax(-1).tolist()


def test_tokens_equal_to_the_last_of_top_k_are_kept_and_of_top_p_the_lowest_ids() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[[7, 8]] = 2
    logits[[20, 30, 40, 50]] = 1
    assert sampler_of(top_k=3).distribution(logits)[0].tolist() == [7, 8, 20, 30, 40, 50]
    assert sampler_of(top_k=6, top_p=0.75).distribution(logits)[0].tolist() == [7, 8, 20, 30]
    assert sampler_of(top_p=0.5).distribution(np.zeros(VOCABULARY, np.float32))[0].tolist() == list(range(150))


@pytest.mark.parametrize(
    "values", [{"temperature": 1e-300}, {"top_k": 1}, {"top_p": 1e-300}, {"min_p": 1}], ids=str
)
def test_the_narrowest_options_leave_the_most_likely_token(values: dict[str, Any]) -> None:
    logits = normal(8)[0]
    ids, probabilities = sampler_of(**values).distribution(logits)
    assert ids.tolist() == [logits.argmax()]
    assert probabilities.tolist() == [1]


def test_presence_and_frequency_penalties_follow_openai_s_formula_on_the_output_alone() -> None:
    logits = normal(9)[0]
    sampler = sampler_of(prompt=(5, 5, 6), presence_penalty=0.7, frequency_penalty=-0.3, logit_bias={6: 2.0})
    output = [5, 6, 6, 9, 6]
    for token in output:
        sampler.accept(token)
    scores = logits.astype(np.float64)
    for token, count in Counter(output).items():
        scores[token] -= count * -0.3 + (count > 0) * 0.7
    scores[6] += 2
    ids, probabilities = sampler.distribution(logits)
    assert len(ids) == VOCABULARY
    np.testing.assert_allclose(probabilities, np.exp(scores) / np.exp(scores).sum(), rtol=1e-5)


def test_ends_wait_for_the_least_number_of_tokens() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[[EOS, 4]] = 50
    sampler = sampler_of(temperature=0, min_tokens=2, stop_ids=frozenset({4}))
    assert generate(sampler, np.broadcast_to(logits, (3, VOCABULARY))) == [0, 0, EOS]


def test_only_tokens_that_the_constraint_allows_are_chosen_whatever_the_bias() -> None:
    mask = np.zeros(VOCABULARY, dtype=bool)
    mask[[10, 20]] = True
    for values in ({"temperature": 0}, {"seed": 3}, {"seed": 3, "top_k": 5, "top_p": 0.9}):
        sampler = sampler_of(constraint=Allowing(mask), logit_bias={5: 100.0}, **values)
        for logits in normal(10, 30):
            choice = sampler.choose(logits)
            sampler.accept(choice.token)
            assert choice.token in (10, 20)


@pytest.mark.parametrize("masked", [False, True])
def test_sequences_chosen_together_get_what_each_gets_alone(masked: bool) -> None:
    def samplers() -> list[TokenSampler]:
        masks = [np.arange(VOCABULARY) % 3 == i % 3 if masked and i % 2 else None for i in range(len(EVERY_KIND))]
        constraints = [None if mask is None else Allowing(mask) for mask in masks]
        return [sampler_of(constraint=c, **values) for c, values in zip(constraints, EVERY_KIND, strict=True)]

    together, alone = samplers(), samplers()
    for step in range(8):
        logits = normal(step, len(alone))
        choices = choose_all(together, logits)
        assert choices == [s.choose(logits[i]) for i, s in enumerate(alone)]
        for choice, a, b in zip(choices, together, alone, strict=True):
            assert isinstance(choice, TokenChoice)
            a.accept(choice.token)
            b.accept(choice.token)


@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_no_number_fails_its_row_alone(bad: float, values: dict[str, Any]) -> None:
    logits = normal(0, 3)
    logits[1, 100] = bad
    choices = choose_all([sampler_of(**values) for _ in logits], logits)
    assert isinstance(choices[1], RunnerFault)
    assert "NaN or infinity" in str(choices[1])
    assert [choices[0], choices[2]] == [sampler_of(**values).choose(logits[i]) for i in (0, 2)]
    with pytest.raises(RunnerFault, match="NaN or infinity"):
        sampler_of(**values).choose(logits[1])
    with pytest.raises(RunnerFault, match="NaN or infinity"):
        sampler_of(**values).distribution(logits[1])


@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
def test_a_row_that_leaves_no_token_fails_alone(values: dict[str, Any]) -> None:
    logits = normal(0, 3)
    logits[0] = -np.inf
    logits[1, :10] = -np.inf
    mask = np.arange(VOCABULARY) < 10
    constraints = [None, Allowing(mask), Allowing(mask)]
    choices = choose_all([sampler_of(constraint=one, **values) for one in constraints], logits)
    assert "all minus infinity" in str(choices[0])
    assert "no token is left" in str(choices[1])
    assert isinstance(choices[2], TokenChoice)


def test_where_the_constraint_allows_only_ends_they_are_chosen_whatever_min_tokens_says() -> None:
    only = sampler_of(constraint=Allowing(np.arange(VOCABULARY) == EOS), min_tokens=1)
    assert only.choose(normal(0)[0]).token == EOS
    others = sampler_of(
        constraint=Allowing(np.isin(np.arange(VOCABULARY), [EOS, 7])), temperature=0, min_tokens=1
    )
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[EOS] = 9
    assert others.choose(logits).token == 7


def test_least_tokens_that_exclude_every_token_fail_the_row() -> None:
    with pytest.raises(RunnerFault, match="lower min_tokens"):
        sampler_of(min_tokens=1, stop_ids=frozenset(range(VOCABULARY))).choose(normal(0)[0])


def test_a_sequence_finishes_where_its_constraint_ends_and_the_last_token_is_part_of_its_text() -> None:
    sampler = sampler_of(constraint=Allowing(np.ones(VOCABULARY, bool), 2), max_tokens=2, ignore_eos=True)
    reasons = []
    for token in (5, 6):
        sampler.accept(token)
        reasons.append(sampler.finish_reason(token))
    assert reasons == [None, "stop"]
    assert not sampler.is_end(6)
    assert sampler_of().is_end(EOS)


def test_log_probabilities_are_those_of_the_model_whatever_the_constraint_excludes() -> None:
    logits = normal(0)[0]
    free = sampler_of(seed=1, logprobs=5).choose(logits)
    bound = sampler_of(constraint=Allowing(np.arange(VOCABULARY) == 7), seed=1, logprobs=5).choose(logits)
    assert bound.top == free.top
    assert bound.logprob == pytest.approx(float(torch.tensor(logits).log_softmax(-1)[7]), abs=1e-5)


@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
def test_impossible_tokens_are_neither_chosen_nor_reported(values: dict[str, Any]) -> None:
    logits = np.full(VOCABULARY, -np.inf, dtype=np.float32)
    logits[[30, 31]] = [1, 0]
    choice = sampler_of(**values | {"logprobs": 20}).choose(logits)
    assert choice.token in (30, 31)
    assert [token for token, _ in choice.top] == [30, 31]
    assert np.exp([logprob for _, logprob in choice.top]).sum() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
@pytest.mark.parametrize("values", EVERY_KIND, ids=str)
def test_logits_of_any_finite_size_give_a_token(values: dict[str, Any], scale: float) -> None:
    logits = np.linspace(-scale, scale, VOCABULARY).astype(np.float32)
    assert 0 <= sampler_of(**values).choose(logits).token < VOCABULARY


def test_log_probabilities_are_left_out_unless_asked_for() -> None:
    assert sampler_of(seed=1).choose(normal(0)[0]).logprob is None
    assert sampler_of(seed=1).choose(normal(0)[0]).top == ()
    assert sampler_of(seed=1, logprobs=0).choose(normal(0)[0]).logprob is not None
    assert sampler_of(seed=1, logprobs=0).choose(normal(0)[0]).top == ()


def test_of_equally_likely_alternatives_those_with_the_lowest_ids_are_reported() -> None:
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    logits[[40, 50]] = 1
    choice = sampler_of(seed=1, logprobs=4).choose(logits)
    assert [token for token, _ in choice.top] == [40, 50, 0, 1]


def test_a_sequence_finishes_at_an_end_or_at_its_length() -> None:
    sampler = sampler_of(max_tokens=3, stop_ids=frozenset({8}))
    reasons = []
    for token in (5, 6, 5, EOS):
        sampler.accept(token)
        reasons.append(sampler.finish_reason(token))
    assert reasons == [None, None, "length", "stop"]
    assert sampler_of(stop_ids=frozenset({8})).finish_reason(8) == "stop"
    assert sampler_of().finish_reason(5) is None


def test_an_ignored_end_does_not_finish_a_sequence_and_a_stop_id_does() -> None:
    sampler = sampler_of(ignore_eos=True, stop_ids=frozenset({8}))
    assert sampler.finish_reason(EOS) is None
    assert sampler.finish_reason(8) == "stop"


def test_ids_beyond_the_logits_are_ignored_in_prompts_and_ends() -> None:
    options = SamplingOptions(temperature=0, repetition_penalty=2.0, min_tokens=1)
    sampler = TokenSampler(options, [VOCABULARY, VOCABULARY + 7], [VOCABULARY + 1], VOCABULARY)
    assert sampler.choose(normal(0)[0]).token == normal(0)[0].argmax()


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(sequences, tokens\) \(1, 300\)"):
        choose_all([sampler_of()], normal(0, 2))
    with pytest.raises(ValueError, match="expected"):
        sampler_of().choose(normal(0)[0, :-1])


def test_no_sequences_give_no_choices() -> None:
    assert choose_all([], np.zeros((0, VOCABULARY), np.float32)) == []

"""Options within their limits pass; others are refused with the option's name, its limits and a remedy."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.generate.sampling_options import SamplingOptions

VOCABULARY = 100

GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 2.0, "top_p": 1e-300, "top_k": -1, "min_p": 1, "repetition_penalty": 100},
    {"top_p": 1, "top_k": 10 * VOCABULARY, "presence_penalty": -2, "frequency_penalty": 2},
    {"seed": -(2**63)},
    {"seed": 2**63 - 1},
    {"logit_bias": {0: -100, VOCABULARY - 1: 100.0}, "stop_ids": frozenset({0, VOCABULARY - 1})},
    {"logprobs": 0, "max_tokens": 1, "min_tokens": 1},
    {"logprobs": 20, "stop": tuple("abcdefghijklmnop")},
]

BAD: list[tuple[str, Any, str]] = [
    *[("temperature", value, "from 0 to 2") for value in (-0.1, 2.1, nan, inf, -inf)],
    *[("top_p", value, "above 0 and at most 1") for value in (0, -0.5, 1.01, nan, inf)],
    *[("top_k", value, "from -1") for value in (-2, nan, inf, 2**31)],
    *[("min_p", value, "from 0 to 1") for value in (-0.1, 1.1, nan, inf)],
    *[("repetition_penalty", value, "from 0.01 to 100") for value in (0, -1, 1000, nan, inf)],
    *[("presence_penalty", value, "from -2 to 2") for value in (-2.1, 2.1, nan, inf)],
    *[("frequency_penalty", value, "from -2 to 2") for value in (-2.1, 2.1, nan, -inf)],
    *[("seed", value, "64 bits") for value in (2**63, -(2**63) - 1)],
    *[("logit_bias", {3: value}, "from -100 to 100") for value in (-100.5, 101, nan, inf)],
    *[("logit_bias", {token: 1.0}, "0 to 99") for token in (-1, VOCABULARY)],
    *[("stop_ids", frozenset({token}), "0 to 99") for token in (-1, VOCABULARY)],
    *[("logprobs", value, "from 0 to 20") for value in (-1, 21)],
    *[("max_tokens", value, "from 1") for value in (0, -5, 2**31)],
    *[("min_tokens", value, "from 0") for value in (-1, nan)],
    ("stop", ("a",) * 17, "limit is 16"),
    ("stop", ("a", ""), "empty string at index 1"),
]


def _check(options: SamplingOptions) -> None:
    options.check()
    options.check_ids(VOCABULARY)


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_values_within_the_limits_pass(values: dict[str, Any]) -> None:
    _check(SamplingOptions(**values))


@pytest.mark.parametrize(("name", "value", "limit"), BAD)
def test_a_value_outside_its_limits_is_refused_with_its_name_and_the_limit(
    name: str, value: Any, limit: str
) -> None:
    options = SamplingOptions(**{name: value})
    with pytest.raises(InvalidParameter, match=limit) as refused:
        _check(options)
    assert refused.value.param == name
    assert name in str(refused.value)


def test_a_minimum_above_the_maximum_is_refused() -> None:
    SamplingOptions(max_tokens=5, min_tokens=5).check()
    with pytest.raises(InvalidParameter, match=r"min_tokens is 6, above max_tokens \(5\)") as refused:
        SamplingOptions(max_tokens=5, min_tokens=6).check()
    assert refused.value.param == "min_tokens"

"""canonical is RFC 8785: byte for byte what the PyPI package rfc8785 writes, and refuses what it refuses."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootstock.adapters.strict_json.canonical import canonical, digest_of

# Every bit pattern of a double: hypothesis' own floats() seldom leaves the neighbourhood of round numbers.
doubles = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
finite = (doubles | st.floats(allow_nan=False)).filter(lambda x: x == x and abs(x) != float("inf"))
integers = st.integers(-(2**53) + 1, 2**53 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]))
# Astral characters sort after U+E000..U+FFFF by code point and before them in UTF-16.
keys = text | st.text(st.sampled_from("a\ud7ff\ue000\ufb33\uffff\U00010000\U0001f600\U0010ffff"), max_size=3)
values = st.recursive(
    st.none() | st.booleans() | integers | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(values)
def test_any_value_is_written_as_the_oracle_writes_it(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@settings(max_examples=2000, deadline=None)
@given(finite)
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
@example(1e21)
@example(999999999999999900000.0)
@example(1e-6)
@example(1e-7)
@example(123456789012345680000.0)
@example(0.000001234)
@example(333333333.33333329)
@example(100.0)
@example(9007199254740993.0)
def test_any_double_is_written_as_the_oracle_writes_it_and_reads_back_equal(number: float) -> None:
    written = canonical(number)
    assert written == rfc8785.dumps(number)
    assert float(json.loads(written)) == number


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, st.none(), max_size=8))
def test_keys_are_in_utf_16_order(value: dict[str, None]) -> None:
    written = canonical(value)
    assert written == rfc8785.dumps(value)
    assert list(json.loads(written)) == sorted(value, key=lambda k: k.encode("utf-16-be"))


def test_an_astral_key_sorts_before_a_private_use_one() -> None:
    assert canonical({"\ue000": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ue000":1}'.encode()


@settings(max_examples=200, deadline=None)
@given(values)
def test_the_canonical_form_of_a_canonical_form_is_itself(value: Any) -> None:
    """Read as RFC 8785 reads JSON: every number is a double."""
    assert canonical(json.loads(canonical(value), parse_int=float)) == canonical(value)


@given(st.integers())
def test_an_integer_that_a_double_cannot_hold_exactly_is_refused_by_both(number: int) -> None:
    for n in (number, number + 2**53, number - 2**53):
        if abs(n) < 2**53:
            assert canonical(n) == rfc8785.dumps(n)
        else:
            with pytest.raises(ValueError, match=str(n)):
                canonical(n)
            with pytest.raises(ValueError, match="exceeds"):
                rfc8785.dumps(n)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_json_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=f"{number} is not a JSON number"):
        canonical({"a": [number]})


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", ["\udbff"], {"\udc00": 1}, {"a": 1, "\ud83d": 2}])
def test_half_a_surrogate_pair_is_refused_clearly(value: Any) -> None:
    with pytest.raises(ValueError, match="holds half a surrogate pair"):
        canonical(value)


@pytest.mark.parametrize("value", [b"bytes", {1: 2}, {None: 1}, {1.5}, object()])
def test_what_is_no_json_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a"):
        canonical(value)


def test_the_digest_is_sha256_of_the_canonical_form() -> None:
    assert digest_of({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert digest_of({"b": 1.0, "a": [True]}) == digest_of({"a": [True], "b": 1})

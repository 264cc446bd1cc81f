"""The grammar of references."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.adapters.errors import InvalidDigest, InvalidName, InvalidReference
from rootstock.adapters.reference import MAX_VERSION, Reference, check_alias, check_digest, check_name

FIRST = string.ascii_lowercase + string.digits
NAMES = st.builds(
    str.__add__, st.sampled_from(FIRST), st.text(st.sampled_from(FIRST + "._-"), max_size=127)
).filter(lambda name: name != "foundation")
ALIASES = st.text(st.sampled_from(string.ascii_letters + string.digits + "._-"), min_size=1, max_size=64).filter(
    lambda alias: any(character in string.ascii_letters for character in alias)
)
PREFIXES = st.text(st.sampled_from("0123456789abcdef"), min_size=12, max_size=64)
REFERENCES = st.one_of(
    st.builds(Reference, NAMES),
    st.builds(Reference, NAMES, version=st.integers(1, MAX_VERSION)),
    st.builds(Reference, NAMES, alias=ALIASES),
    st.builds(Reference, NAMES, digest_prefix=PREFIXES),
)


@given(REFERENCES)
def test_a_written_reference_reads_back_as_itself(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@given(st.one_of(st.text(max_size=250), st.from_regex(r"[a-z][a-z@:.0-9\n]*", fullmatch=True)))
def test_any_text_is_refused_or_is_written_back_unchanged(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("spam", Reference("spam")),
        ("spam@3", Reference("spam", version=3)),
        ("spam@prod", Reference("spam", alias="prod")),
        ("spam@3b", Reference("spam", alias="3b")),
        ("spam@sha256", Reference("spam", alias="sha256")),
        ("spam@sha256:0123456789ab", Reference("spam", digest_prefix="0123456789ab")),
        ("a" * 128 + "@sha256:" + "f" * 64, Reference("a" * 128, digest_prefix="f" * 64)),
        ("foundation", Reference("foundation")),
    ],
)
def test_each_form_is_read_as_what_it_says(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@3",
        "spam@",
        "Spam",
        ".spam",
        "../spam",
        "sp am",
        "spam\n",
        "spam@3\n",
        "spam@prod\n",
        "spam@0",
        "spam@03",
        "spam@-1",
        "spam@+1",
        "spam@1_0",
        "spam@1.5",
        "spam@..",
        "spam@٣",
        "spam@²",
        "späm",
        "spam@pröd",
        "spam@1@2",
        "spam@sha256:",
        "spam@sha256:0123456789a",
        "spam@sha256:0123456789AB",
        "spam@sha256:0123456789ab\n",
        "spam@sha256:" + "0" * 65,
        "spam@md5:0123456789ab",
        "spam@" + "9" * 10,
        "spam@" + "p" * 65,
        "a" * 129,
        "foundation@1",
        "foundation@live",
        "foundation@sha256:0123456789ab",
        "\ud800",
        None,
        7,
    ],
    ids=ascii,
)
def test_what_is_not_a_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, "a@" + "1" * 10_000_000, "@" * 10_000_000], ids=["name", "version", "at"]
)
def test_an_absurdly_long_text_is_refused_at_once_with_a_short_message(text: str) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidReference) as refused:
        Reference.parse(text)
    assert time.thread_time() - started < 0.5
    assert len(str(refused.value)) < 300


def test_a_reference_takes_one_selector_only() -> None:
    with pytest.raises(InvalidReference, match="one of"):
        Reference("spam", version=3, alias="prod")


@pytest.mark.parametrize(
    "version",
    [0, -1, MAX_VERSION + 1, True, 10**5000],
    ids=["zero", "negative", "past the last", "a truth", "5001 digits"],
)
def test_a_number_that_no_version_can_have_is_refused(version: int) -> None:
    with pytest.raises(InvalidReference):
        Reference("spam", version=version)


def test_the_foundation_s_name_cannot_be_published() -> None:
    with pytest.raises(InvalidName, match="reserved") as refused:
        check_name("foundation")
    assert (refused.value.code, refused.value.param) == ("invalid_name", "name")


def test_bad_names_aliases_and_digests_are_refused_with_the_parameter_they_came_in() -> None:
    with pytest.raises(InvalidName) as name:
        check_name("No")
    with pytest.raises(InvalidName) as alias:
        check_alias("12")
    with pytest.raises(InvalidDigest) as digest:
        check_digest("sha256:" + "0" * 63 + "\n")
    assert [error.value.param for error in (name, alias, digest)] == ["name", "alias", "digest"]

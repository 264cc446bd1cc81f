"""Damage anywhere in an upload is refused, or changes nothing: never another error, never other content."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rootstock.adapters.bundle import Bundle, open_bundle, pack
from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, MEMBERS, WEIGHTS
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.attacks.forge import LIMITS, good_files, plain_files, tiny_bert

fuzz = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
flips = st.lists(st.tuples(st.integers(0, 2**24), st.integers(1, 255)), min_size=1, max_size=4)
CHECKS = ["size", "members", "names", "schema", "safetensors", "sites", "finite", "rank", "labels", "foundation"]
# Where a zip is soft: the directory and its end, which no checksum covers.
tails = st.lists(st.tuples(st.integers(-400, -1), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FoundationSpec:
    return describe(tiny_bert(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def good(spec: FoundationSpec) -> dict[str, bytes]:
    return good_files(spec)


def flipped(data: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for at, mask in places:
        changed[at % len(data)] ^= mask
    return bytes(changed)


def opened(upload: bytes | Mapping[str, bytes], spec: FoundationSpec) -> Bundle | None:
    """The bundle, its adapter read too, or None where it is refused; anything else raised fails the test."""
    try:
        bundle = open_bundle(upload if isinstance(upload, bytes) else pack(upload), LIMITS, spec)
        assert bundle.adapter(spec, LIMITS.max_rank).digest == bundle.digest
        bundle.golden()
    except Rejected as error:
        if error.check not in CHECKS:
            raise
        return None
    return bundle


@fuzz
@given(places=flips | tails, kind=st.sampled_from(["bundle", "plain"]))
def test_flipped_bytes_in_the_zip_are_refused_or_change_nothing(
    spec: FoundationSpec, good: dict[str, bytes], places: list[tuple[int, int]], kind: str
) -> None:
    files = good if kind == "bundle" else plain_files()
    whole = opened(files, spec)
    assert whole is not None
    result = opened(flipped(pack(files), places), spec)
    assert result is None or (result.digest, result.files) == (whole.digest, whole.files)


@fuzz
@given(cut=st.integers(0, 2**24), from_front=st.booleans())
def test_a_cut_zip_is_refused_or_changes_nothing(
    spec: FoundationSpec, good: dict[str, bytes], cut: int, from_front: bool
) -> None:
    data = pack(good)
    cut %= len(data) - 1
    result = opened(data[cut + 1 :] if from_front else data[: cut + 1], spec)
    whole = opened(good, spec)
    assert whole is not None
    assert result is None or result.digest == whole.digest


@fuzz
@given(places=flips, member=st.sampled_from(MEMBERS), cut=st.none() | st.integers(0, 2**24))
def test_a_damaged_member_in_a_sound_zip_never_passes_for_the_original(
    spec: FoundationSpec, good: dict[str, bytes], places: list[tuple[int, int]], member: str, cut: int | None
) -> None:
    content = flipped(good[member], places)
    content = content if cut is None else content[: cut % len(content)]
    result = opened({**good, member: content}, spec)
    if member != MANIFEST:
        assert result is None or content == good[member]
    elif result is not None and content != good[member]:
        # Another manifest of the same files is another bundle: it has its own digest.
        assert result.digest != opened(good, spec).digest  # type: ignore[union-attr]


@fuzz
@given(places=flips | st.lists(st.tuples(st.integers(0, 2200), st.integers(1, 255)), min_size=1, max_size=3),
       member=st.sampled_from([CONFIG, WEIGHTS]))  # fmt: skip
@example(places=[(7, 1)], member=WEIGHTS)
def test_a_damaged_plain_member_is_refused_or_is_another_bundle(
    spec: FoundationSpec, places: list[tuple[int, int]], member: str
) -> None:
    files = plain_files()
    content = flipped(files[member], places)
    result = opened({**files, member: content}, spec)
    whole = opened(files, spec)
    assert whole is not None
    assert result is None or (result.digest == whole.digest) == (content == files[member])


@fuzz
@given(st.binary(max_size=200), st.sampled_from([CONFIG, GOLDEN, MANIFEST, CARD, WEIGHTS]))
def test_any_bytes_as_a_member_are_refused_or_are_its_content(
    spec: FoundationSpec, good: dict[str, bytes], content: bytes, member: str
) -> None:
    assert opened({**good, member: content}, spec) is None
    header = struct.pack("<Q", len(content)) + content
    assert opened(plain_files(header), spec) is None
    assert opened(content, spec) is None

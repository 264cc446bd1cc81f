"""Base64 is read strictly, in slices as a whole, and a data URL only if it is of the input's modality."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.service.api.media.encoded_file import decode_base64, decode_file
from rootstock.service.engine.core.errors import InvalidInput


@given(st.binary(max_size=300))
def test_base64_of_the_standard_library_is_read_back(data: bytes) -> None:
    assert decode_base64(base64.b64encode(data).decode(), "x") == data


@pytest.mark.parametrize("size", [2**16, 3 * 2**14, 3 * 2**14 + 1, 200_000])
def test_a_file_of_several_slices_is_read_whole(size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    assert decode_base64(base64.b64encode(data).decode(), "x") == data


@given(st.text(alphabet="AZaz09+/=-_ \né", max_size=12))
def test_a_text_is_read_if_and_only_if_it_is_base64(text: str) -> None:
    is_base64 = re.fullmatch(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", text)
    try:
        data = decode_base64(text, "x")
    except InvalidInput:
        assert is_base64 is None
    else:
        assert is_base64
        # The last bits of a padded text stand for nothing.
        assert base64.b64encode(data)[:-4] == text.encode()[:-4]


def test_padding_at_the_end_of_a_slice_is_refused() -> None:
    text = "A" * (2**16 - 1) + "="
    with pytest.raises(InvalidInput, match="padding stands before its end"):
        decode_base64(text + "AAAA", "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AAA", "3 characters, not a multiple of 4; send base64 of RFC 4648"),
        ("AAA\n", "not base64; send base64 of RFC 4648 with + and /, padded with =, without spaces"),
        ("AA A", "not base64"),
        ("A-_A", "not base64"),
        ("A===", "not base64"),
        ("====", "not base64"),
        ("Äaaa", "not base64"),
        ("", "an empty file"),
        ("photo.png", "not base64"),
        ("data:,AAAA", "another form than data:image/…;base64"),
        ("data:image/png,AAAA", "another form"),
        ("data:image/png;base64", "another form"),
        ("data:image/png;base64 ,AAAA", "another form"),
        ("data:" + "x" * 300 + ";base64,AAAA", "another form"),
        ("data:audio/wav;base64,AAAA", "type audio/wav, not of an image; send it under 'audio'"),
        ("data:image/png;base64,", "an empty file"),
        ("data:image/png;base64,AAA", "3 characters"),
    ],
)
def test_any_other_text_is_refused_with_what_is_read(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(words)) as refused:
        decode_file(text, "image", "inputs[0].image")
    assert refused.value.param == "inputs[0].image"
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:;base64,",
        "data:image/png;charset=binary;name=a.png;base64,",
        "data:application/octet-stream;base64,",
        "",
    ],
)
def test_a_data_url_is_read_with_any_media_type_but_that_of_another_modality(head: str) -> None:
    assert decode_file(head + "iVBORw==", "image", "x") == b"\x89PNG"

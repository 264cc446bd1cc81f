"""Tokens are transformers' own: pairs, prefixes, and truncation from either side, shared longest first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import TooLong
from rootstock.service.engine.encode.modalities.text import Input, Tokenizer
from tests.tokenizer_families import FAMILIES, save_tokenizer

TEXTS = [
    "",
    " ",
    "ok",
    "Where is my parcel? It was due on Monday.",
    "İstanbul'da ☕ naïve e\u0301 漢字 \u200b tab\tend [SEP] unaffordability",
    "\x00\ufffd",
]
shared = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def ours(foundation: FoundationFiles) -> Tokenizer:
    return Tokenizer(foundation.folder / "tokenizer.json")


@pytest.fixture(scope="module")
def theirs(foundation: FoundationFiles) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(foundation.folder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def same(
    ours: Tokenizer, theirs: Any, value: Input, preprocessing: Preprocessing, truncate: bool, **options: Any
) -> None:
    first, second = (value, None) if isinstance(value, str) else value
    text = preprocessing.prefix + first
    options |= {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    # In a batch transformers keeps an empty second text.
    batch = theirs([text], None if second is None else [second], **options)
    wanted = {name: values[0] for name, values in batch.items()}
    encoded = ours.encode(value, preprocessing, truncate)
    assert list(encoded.ids) == wanted["input_ids"]
    assert list(encoded.type_ids) == wanted["token_type_ids"]
    assert encoded.encoding.offsets == [tuple(o) for o in wanted["offset_mapping"]]
    assert encoded.encoding.special_tokens_mask == wanted["special_tokens_mask"]
    assert (encoded.text, encoded.shift) == (text, len(preprocessing.prefix))


@pytest.mark.parametrize("prefix", ["", "query: ", "q"])
def test_texts_and_pairs_of_any_kind_are_tokenised_as_transformers_does(
    ours: Tokenizer, theirs: Any, prefix: str
) -> None:
    for first in TEXTS:
        same(ours, theirs, first, Preprocessing(512, prefix=prefix), truncate=False)
        for second in TEXTS:
            same(ours, theirs, (first, second), Preprocessing(512, prefix=prefix), truncate=False)


VOCABULARIES = ["the cat sat on a mat and ran off to sea", "one two three four five six seven"]


def words(count: int, kind: int) -> str:
    vocabulary = VOCABULARIES[kind].split()
    return " ".join(vocabulary[i % len(vocabulary)] for i in range(count))


@shared
@given(
    first=st.integers(0, 60),
    second=st.one_of(st.none(), st.integers(0, 60)),
    limit=st.integers(3, 64),
    side=st.sampled_from(["left", "right"]),
    prefix=st.sampled_from(["", "query : "]),
)
def test_what_is_too_long_is_truncated_as_transformers_does_from_either_side(
    ours: Tokenizer, theirs: Any, first: int, second: int | None, limit: int, side: Any, prefix: str
) -> None:
    value: Input = words(first, 0) if second is None else (words(first, 0), words(second, 1))
    preprocessing = Preprocessing(limit, side, prefix)
    theirs.truncation_side = side
    same(ours, theirs, value, preprocessing, truncate=True, truncation="longest_first", max_length=limit)
    assert len(ours.encode(value, preprocessing, truncate=True).ids) <= limit


@shared
@given(first=st.integers(0, 40), second=st.one_of(st.none(), st.integers(0, 40)), limit=st.integers(3, 64))
def test_too_long_names_both_lengths_and_what_fits_is_never_cut(
    ours: Tokenizer, theirs: Any, first: int, second: int | None, limit: int
) -> None:
    value: Input = words(first, 0) if second is None else (words(first, 0), words(second, 1))
    length = first + (2 if second is None else 3 + second)
    if length <= limit:
        assert len(ours.encode(value, Preprocessing(limit), truncate=False).ids) == length
        return
    with pytest.raises(TooLong, match=rf"has {length} tokens and the limit is {limit};") as raised:
        ours.encode(value, Preprocessing(limit), truncate=False)
    assert raised.value.param == "inputs"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [(3000, None, 8), (3000, None, 63), (3000, 2, 8), (200, 3000, 63), (1500, 2000, 63), (2000, 1500, 63)],
)
def test_a_text_is_truncated_as_transformers_does_however_long_it_is(
    ours: Tokenizer, theirs: Any, first: int, second: int | None, limit: int, side: Any
) -> None:
    text, pair = words(first, 0), None if second is None else words(second, 0)
    theirs.truncation_side = side
    options = {"truncation": "longest_first", "max_length": limit, "return_offsets_mapping": True}
    wanted = theirs("query : " + text, pair, **options)
    value = text if pair is None else (text, pair)
    encoded = ours.encode(value, Preprocessing(limit, side, "query : "), truncate=True)
    assert list(encoded.ids) == wanted["input_ids"]
    if pair is None:
        offsets = [(start + encoded.begin, end + encoded.begin) for start, end in encoded.encoding.offsets[1:-1]]
        assert offsets == [tuple(o) for o in wanted["offset_mapping"][1:-1]]


@pytest.mark.parametrize("text", ["." * 40_000, "unaffordability " * 4_000, "漢" * 40_000])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_without_end_is_not_read_to_its_end(
    ours: Tokenizer, theirs: Any, text: str, side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs.truncation_side = side
    wanted = theirs(text, truncation=True, max_length=64)["input_ids"]
    read: list[int] = []
    bare = Tokenizer._bare

    def counted(self: Tokenizer, part: str) -> Any:
        read.append(len(part))
        return bare(self, part)

    monkeypatch.setattr(Tokenizer, "_bare", counted)
    assert list(ours.encode(text, Preprocessing(64, side), truncate=True).ids) == wanted
    with pytest.raises(TooLong, match="has more than 64 tokens and the limit is 64;"):
        ours.encode(text, Preprocessing(64, side), truncate=False)
    assert sum(read) < 5_000


@pytest.mark.parametrize("limit", [3, 4, 5, 8, 64])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_truncation_cuts_off_is_not_kept(ours: Tokenizer, limit: int, side: Any) -> None:
    value = words(300, 0), words(400, 1)
    encoded = ours.encode(value, Preprocessing(limit, side), truncate=True)
    assert len(encoded.ids) == limit
    assert len(encoded.encoding.overflowing) <= 4


def test_a_long_text_of_few_tokens_is_read_to_its_end(ours: Tokenizer, theirs: Any) -> None:
    text = "x" * 20_000 + " " * 20_000 + "ok"
    assert list(ours.encode(text, Preprocessing(8), truncate=False).ids) == theirs(text)["input_ids"]


def test_the_file_s_own_truncation_and_padding_to_128_are_off(ours: Tokenizer) -> None:
    assert len(ours.encode("ok", Preprocessing(512), truncate=False).ids) == 3
    assert len(ours.encode(words(300, 0), Preprocessing(512), truncate=False).ids) == 302


def test_the_prefix_counts_against_the_limit(ours: Tokenizer) -> None:
    ours.encode(words(4, 0), Preprocessing(6), truncate=False)
    with pytest.raises(TooLong, match="has 8 tokens and the limit is 6"):
        ours.encode(words(4, 0), Preprocessing(6, prefix="query : "), truncate=False)


def test_the_ids_that_padding_and_unknown_tokens_have_are_the_vocabulary_s(ours: Tokenizer, theirs: Any) -> None:
    assert (ours.pad_id, ours.unk_id) == (theirs.pad_token_id, theirs.unk_token_id)
    assert ours.has_subword_prefix
    assert ours.token(theirs.unk_token_id) == "[UNK]"
    assert ours.token(10**6) == ""


def test_tokens_join_as_transformers_joins_them(ours: Tokenizer, theirs: Any) -> None:
    for text in TEXTS:
        tokens = theirs.tokenize(text)
        assert ours.join(tokens) == theirs.convert_tokens_to_string(tokens)


PLACES = ("ids", "type_ids", "offsets", "special_tokens_mask", "sequence_ids", "word_ids")
SPACED = (
    "Ada Lovelace went to London",
    "  Ada   Lovelace\u00a0met Babbage. ",
    " a",
    "New York's cafés, [MASK] <mask> x",
)
every_family = pytest.mark.parametrize("family", [*FAMILIES, None])


def of_family(family: str | None, folder: Path) -> tuple[Tokenizer, Any]:
    """Ours and transformers' tokenizer of one file; without a family one that has no post-processor."""
    path = save_tokenizer(family or "Unigram", folder)
    if family is None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    return Tokenizer(path), PreTrainedTokenizerFast(tokenizer_file=str(path))


@every_family
def test_every_family_s_tokens_are_at_the_characters_that_transformers_gives(
    family: str | None, tmp_path: Path
) -> None:
    ours, theirs = of_family(family, tmp_path)
    for first in (*TEXTS, *SPACED):
        for second in (None, *TEXTS, *SPACED):
            value = first if second is None else (first, second)
            # One text is a pair with an empty second text in a batch alone: there both are kept.
            texts = ["query: " + first]
            (wanted,) = theirs(texts, None if second is None else [second]).encodings
            encoding = ours.encode(value, Preprocessing(512, prefix="query: "), truncate=False).encoding
            for name in PLACES:
                assert getattr(encoding, name) == getattr(wanted, name), (name, value)


@pytest.mark.parametrize("side", ["left", "right"])
@every_family
def test_what_truncation_leaves_of_a_text_is_where_transformers_says(
    family: str | None, side: Any, tmp_path: Path
) -> None:
    ours, theirs = of_family(family, tmp_path)
    theirs.truncation_side = side
    for first in SPACED:
        for second in (None, *SPACED):
            value = first if second is None else (first, second)
            for limit in (6, 9, 12):
                (wanted,) = theirs(first, second, truncation="longest_first", max_length=limit).encodings
                encoding = ours.encode(value, Preprocessing(limit, side), truncate=True).encoding
                for name in PLACES:
                    assert getattr(encoding, name) == getattr(wanted, name), (name, value, limit)

"""Uploads that attack through the tokens that they bring: each is refused by its check, naming what is wrong."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.bundle import open_bundle, pack
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.attacks.forge import LIMITS, WORDS, good_config, good_tensors, plain_files

TABLE = "base_model.model.bert.embeddings.word_embeddings"
DELTA = f"{TABLE}.token_adapter.trainable_tokens_delta"
COUNT = len(WORDS)
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
NEW = [{"id": COUNT + i, "content": f"<new{i}>", **FLAGS} for i in range(2)]


def upload(
    base: FoundationWeights,
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer: Callable[[dict[str, Any]], object] | None = None,
    **config: Any,
) -> bytes:
    """An adapter with two added tokens, and its tokenizer after `tokenizer` has changed it."""
    own = json.loads((base.folder / "tokenizer.json").read_bytes())
    content = own | {"added_tokens": copy.deepcopy(NEW)}
    if tokenizer is not None:
        tokenizer(content)
    given = {f"{TABLE}.weight": np.full((COUNT + 2, 32), 0.5, np.float32)} if tensors is None else tensors
    files = plain_files({**good_tensors(), **given}, good_config(**config))
    return pack({**files, "tokenizer.json": json.dumps(content).encode()})


def opened(data: bytes, tiny: FoundationSpec, base: FoundationWeights) -> Any:
    return open_bundle(data, LIMITS, tiny, base=base).adapter(tiny, LIMITS.max_rank, base)


def test_the_example_itself_is_read(tiny: FoundationSpec, base: FoundationWeights) -> None:
    adapter = opened(upload(base), tiny, base)
    assert [token.content for token in adapter.preprocessing.tokens] == ["<new0>", "<new1>"]
    assert adapter.weights.words.ids.tolist() == list(range(COUNT + 2))


TOKENIZERS: list[tuple[Callable[[dict[str, Any]], object], str, str]] = [
    (lambda t: t.update(normalizer={"type": "Lowercase"}), "normalizer", "may only add tokens"),
    (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "a+"}}), "pre_tokenizer", "differs"),
    (lambda t: t["model"]["vocab"].update(word3=4, word4=3), "model", "differs"),
    (lambda t: t.update(added_tokens={}), "added_tokens", "not a list"),
    (lambda t: t["added_tokens"][0].update(id=COUNT + 7), "added_tokens", f"gives it {COUNT}"),
    (lambda t: t["added_tokens"][0].update(id=-1), "added_tokens", "id -1"),
    (lambda t: t["added_tokens"][0].update(content=""), "added_tokens", "1 to 256 characters"),
    (lambda t: t["added_tokens"][0].update(content="x" * 257), "added_tokens", "1 to 256 characters"),
    (lambda t: t["added_tokens"][0].update(special="yes"), "added_tokens", "true or false"),
    (lambda t: t["added_tokens"][0].update(code="x"), "added_tokens", "does not have the keys"),
    (lambda t: t["added_tokens"].append(NEW[0]), "added_tokens", "same id"),
    (
        lambda t: t.update(added_tokens=[{"id": COUNT + i, "content": f"<{i}>", **FLAGS} for i in range(1025)]),
        "added_tokens",
        "limit is 1024",
    ),
    (lambda t: t["added_tokens"].append(None), "added_tokens", "does not have the keys"),
    (lambda t: t["added_tokens"].append([[]]), "added_tokens", "does not have the keys"),
    (lambda t: t["added_tokens"][0].update(id=[]), "added_tokens", "not a number of a token"),
    (lambda t: t["added_tokens"][0].update(content={}), "added_tokens", "1 to 256 characters"),
    (lambda t: t["added_tokens"][0].update(lstrip=None), "added_tokens", "true or false"),
    (lambda t: t.update(added_tokens="<new0>"), "added_tokens", "not a list"),
    *(
        (lambda t, wrong=wrong: t.update(model={"type": "BPE", **wrong}), "model", "differs")
        for wrong in (
            {"merges": [1]}, {"merges": [None, "a b", [["a"]]]}, {"merges": {}}, {"merges": [{"merges": [1]}]},
            {"vocab": {"merges": [2.5]}}, {"vocab": []},
        )
    ),
    *(
        (lambda t, part=part, wrong=wrong: t.update({part: wrong}), part, "differs")
        for part in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder")
        for wrong in (1, "x", [None], [{"merges": [1]}], {"merges": [1]})
    ),
    # A word of the vocabulary as an added token must keep its number.
    (lambda t: t["added_tokens"][0].update(content="word3"), "added_tokens", f"gives it {WORDS.index('word3')}"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "where", "said"), TOKENIZERS)
def test_a_tokenizer_that_does_more_than_add_tokens_is_refused(
    tiny: FoundationSpec,
    base: FoundationWeights,
    change: Callable[[dict[str, Any]], object],
    where: str,
    said: str,
) -> None:
    with pytest.raises(Rejected, match=said) as caught:
        opened(upload(base, tokenizer=change), tiny, base)
    assert caught.value.check == "schema"
    assert where in caught.value.where


def test_a_tokenizer_much_larger_than_the_foundation_s_is_refused_before_it_is_parsed(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    # Parsed, these 12 MB of lists would take over 250 MB. They are no JSON, so a parser would say so.
    content = b"[" + b"[]," * 2**22
    tensors = {**good_tensors(), f"{TABLE}.weight": rows(COUNT + 2)}
    data = pack({**plain_files(tensors), "tokenizer.json": content})
    assert len(data) < 2**18
    with pytest.raises(Rejected, match=r"12582913 bytes and the limit is \d+, .* tokens added") as caught:
        opened(data, tiny, base)
    assert (caught.value.check, caught.value.where) == ("size", "tokenizer.json")


def rows(count: int, value: float = 0.5) -> np.ndarray:
    return np.full((count, 32), value, np.float32)


TENSORS: list[tuple[dict[str, np.ndarray], dict[str, Any], str, str]] = [
    ({f"{TABLE}.weight": rows(COUNT - 1)}, {}, "sites", "at least 64"),
    ({f"{TABLE}.weight": rows(COUNT + 2)[:, :31]}, {}, "sites", "at least 64"),
    ({f"{TABLE}.weight": rows(COUNT)}, {}, "sites", "the adapter has no row"),
    ({f"{TABLE}.weight": rows(COUNT + 2, np.nan)}, {}, "finite", "nan"),
    ({DELTA: rows(3)}, {"trainable_token_indices": [5, COUNT]}, "sites", "expected"),
    ({DELTA: rows(1)}, {"trainable_token_indices": [5]}, "sites", "has no row"),
    ({}, {"trainable_token_indices": [5]}, "sites", "missing"),
    ({DELTA: rows(2)}, {"trainable_token_indices": [5, 5]}, "schema", "twice"),
    ({DELTA: rows(1)}, {"trainable_token_indices": [-5]}, "schema", "whole number"),
    ({DELTA: rows(1)}, {"trainable_token_indices": [True]}, "schema", "whole number"),
    ({DELTA: rows(1)}, {"trainable_token_indices": "5"}, "schema", "list"),
    ({DELTA: rows(1)}, {"trainable_token_indices": list(range(5000))}, "schema", "4096"),
    ({DELTA: rows(1)}, {"trainable_token_indices": {"position_embeddings": [5]}}, "schema", "word embedding"),
    ({DELTA: rows(1)}, {"trainable_token_indices": {"a": [5], "b": [6]}}, "schema", "word embedding"),
    ({f"{TABLE}.token_adapter.other": rows(1)}, {}, "sites", "word_embeddings"),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "config", "check", "said"), TENSORS)
def test_rows_that_do_not_fit_the_table_or_the_tokens_are_refused(
    tiny: FoundationSpec,
    base: FoundationWeights,
    tensors: dict[str, np.ndarray],
    config: dict[str, Any],
    check: str,
    said: str,
) -> None:
    with pytest.raises(Rejected, match=f"(?s){said}") as caught:
        opened(upload(base, tensors, **config), tiny, base)
    assert caught.value.check == check


def test_rows_beyond_the_table_that_no_file_names_are_refused_with_the_remedy(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    tensors = {**good_tensors(), f"{TABLE}.weight": rows(COUNT + 2)}
    with pytest.raises(Rejected, match=r"2 rows beyond .* save the tokenizer beside the adapter"):
        opened(pack(plain_files(tensors)), tiny, base)


def test_a_tokenizer_beside_an_adapter_that_changes_no_embedding_is_not_read(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    files = {**plain_files(), "tokenizer.json": b"\xff not JSON"}
    bundle = open_bundle(pack(files), LIMITS, tiny, base=base)
    assert "tokenizer.json" in bundle.ignored
    assert bundle.manifest.to_json()["preprocessing"].keys() == {"max_length", "truncation_side", "prefix"}


def _with_damaged_tokenizer(data: bytes) -> bytes:
    """Return a zip whose tokenizer.json does not unpack, although its entry is in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("tokenizer.json")
    begin = info.header_offset + 30 + len(info.filename)
    return data[:begin] + bytes(255 - byte for byte in data[begin : begin + 8]) + data[begin + 8 :]


def test_a_tokenizer_is_unpacked_only_for_an_adapter_that_changes_what_tokens_mean(
    tiny: FoundationSpec, base: FoundationWeights
) -> None:
    plain = pack({**plain_files(), "tokenizer.json": json.dumps({"added_tokens": NEW}).encode()})
    assert "tokenizer.json" in open_bundle(_with_damaged_tokenizer(plain), LIMITS, tiny, base=base).ignored
    with pytest.raises(Rejected, match="cannot be read from the archive"):
        open_bundle(_with_damaged_tokenizer(upload(base)), LIMITS, tiny, base=base)


def test_the_foundation_s_tokenizer_is_parsed_once_for_all_adapters(base: FoundationWeights) -> None:
    assert base.tokenizer() is base.tokenizer()
